#!/bin/sh
echo "bad 1 TFAIL: $# arguments, $2"
exit 1
