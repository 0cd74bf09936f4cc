"""What tests share: servers of their own, the fault proxy, the key-leak check."""
