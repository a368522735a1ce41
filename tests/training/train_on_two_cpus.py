"""rd_tf.train with the CPU as two devices; prints the number of replicas at the end. Run by test_mixed_precision.py."""

import sys

import tensorflow as tf

from rd_tf import command_line
from rd_tf.train import train

if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    train(**command_line.parse(train, sys.argv[1:]))
    print(tf.distribute.MirroredStrategy().num_replicas_in_sync)
