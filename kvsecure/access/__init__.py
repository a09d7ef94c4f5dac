"""The law: who may do what. One total, pure function over every request there is."""
