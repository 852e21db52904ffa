# transport/
