"""Labelled synthetic shoppers over a real catalogue, driven by a world file.

`world` is what can be set, `shop` the catalogue as arrays, `shoppers` who comes, `visits` what they
do and why, `timeline` in which order and when, `tables` the columns, `run` all of it into files.
Every number comes from one seed; the truth behind the events is written beside them, never in them.
"""
