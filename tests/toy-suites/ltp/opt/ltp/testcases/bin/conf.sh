#!/bin/sh
echo "conf 1 TCONF: the kernel has none"
exit 32
