"""What rd_tf.prepare and rd_tf.teach do, for data larger than one machine, with Apache Beam."""
