# fuzz targets: built with --enable-fuzzing
