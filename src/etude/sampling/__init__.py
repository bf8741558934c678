"""What samples: requests, their scheduler, and the engines that decode them."""
