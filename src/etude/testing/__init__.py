"""What a method is tested with: rows that it declares, exact stand-ins, and the laws that hold for all of them."""
