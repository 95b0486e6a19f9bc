"""Tests of cictl.ui."""
