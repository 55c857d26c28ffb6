"""Catalogs from and to other tools' files. Needs no torch."""
