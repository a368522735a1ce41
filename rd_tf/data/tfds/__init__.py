"""Builders of check-in datasets for TensorFlow Datasets; `import rd_tf.data.tfds.builders` makes them known to it."""
