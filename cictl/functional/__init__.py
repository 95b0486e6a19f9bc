"""The paper's equations, each one pure function in torch."""
