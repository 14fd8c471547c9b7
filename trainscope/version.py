"""The one place of the version: the package and its documentation are built with it."""

VERSION = "0.2.0"
