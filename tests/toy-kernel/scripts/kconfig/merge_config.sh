#!/bin/sh
# merge_config.sh -m -O FOLDER BASE FRAGMENT
cat "$5" >>"$3/.config"
