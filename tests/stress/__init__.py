"""What the framework must bear: damaged and hostile inputs, kills, full disks; measured, and compared with a bar."""
