"""Importing this module makes `tfds.builder("gowalla")` and `tfds.builder("foursquare_checkins")` work.

TensorFlow Datasets registers a builder when its class is defined, so the import is the registration.
"""

from rd_tf.data.tfds.foursquare_checkins.foursquare_checkins_dataset_builder import Builder as FoursquareCheckins
from rd_tf.data.tfds.gowalla.gowalla_dataset_builder import Builder as Gowalla

__all__ = ["FoursquareCheckins", "Gowalla"]
