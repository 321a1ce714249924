#!/bin/sh
echo "good 1 TPASS: $LTPROOT, $LTP_TIMEOUT_MUL"
