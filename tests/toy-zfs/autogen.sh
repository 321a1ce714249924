#!/bin/sh
autoreconf && touch configure
