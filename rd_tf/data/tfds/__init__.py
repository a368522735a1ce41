"""Builders of check-in datasets for TensorFlow Datasets; `import rd_tf.data.readers.tfds` makes them known to it."""
