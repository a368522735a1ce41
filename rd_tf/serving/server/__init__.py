"""A model server in Python with tensorflow_model_server's REST and gRPC interface, for laptops and CI."""
