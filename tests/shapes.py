"""The type checker with which the tests hold functions to the shapes in their signatures."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number will do for a float
