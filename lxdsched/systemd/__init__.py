"""What we tell systemd: how the service stands (manager, standing), and the log as its journal has it (journal)."""
