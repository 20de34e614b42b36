"""How a process serves: the server, its protocol, several workers, the students beside it."""
