# drivers/
