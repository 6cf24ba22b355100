"""What sweeps' tests share lies here: small data, and programs to be killed."""
