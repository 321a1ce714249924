# Evaluates a dkms.conf, and prints what it sets: a directive, an index and a value, each ended by NUL.
#
# It gets dkms(8)'s variables: kernelver, arch, kernel_source_dir, dkms_tree, source_tree, install_tree,
# tmp_location. What a dkms.conf prints itself goes to stderr. Regular expressions are matched here, since they are
# bash's; `matches` is printed for those that do.

directives="PACKAGE_NAME PACKAGE_VERSION CLEAN PRE_BUILD POST_BUILD OBSOLETE_BY BUILD_DEPENDS MAKE MAKE_MATCH PATCH
    PATCH_MATCH BUILT_MODULE_NAME BUILT_MODULE_LOCATION DEST_MODULE_NAME DEST_MODULE_LOCATION STRIP
    BUILD_EXCLUSIVE_KERNEL BUILD_EXCLUSIVE_KERNEL_MIN BUILD_EXCLUSIVE_KERNEL_MAX BUILD_EXCLUSIVE_ARCH
    BUILD_EXCLUSIVE_CONFIG"
unset $directives

bash -n ./dkms.conf || exit 3

# dkms knows a package's name and version before it reads the file for a kernel.
{
    IFS= read -r -d '' module
    IFS= read -r -d '' module_version
} < <(
    . ./dkms.conf >&2 </dev/null
    printf '%s\0' "$PACKAGE_NAME" "$PACKAGE_VERSION"
)

# dkms prints each value, its white space made single spaces, between double quotes, and reads that again: quotes in
# it go, and variables of a value in single quotes are replaced. Packages rely on it. What cannot be read so stays.
read_again() {
    local IFS=$' \t\n' once twice
    set -f
    set -- $1
    set +f
    once=${*%$'\r'}
    if [[ $once == *[\"\$\`\\]* ]]; then
        unset twice
        eval "twice=\"$once\"" >&2 2>/dev/null </dev/null
        once=${twice-$once}
    fi
    value=$once
}

readonly asked_kernel=$kernelver asked_arch=$arch asked_directives=$directives
. ./dkms.conf >&2 </dev/null

for directive in $asked_directives; do
    declare -n values=$directive
    for index in "${!values[@]}"; do
        read_again "${values[$index]}"
        builtin printf '%s\0' "$directive" "$index" "$value"
        case $directive in
            *_MATCH | BUILD_EXCLUSIVE_KERNEL) subject=$asked_kernel ;;
            BUILD_EXCLUSIVE_ARCH) subject=$asked_arch ;;
            *) continue ;;
        esac
        [[ $subject =~ $value ]] && builtin printf '%s\0' "matches $directive" "$index" yes
    done
    declare +n values
done
builtin printf '%s\0' end 0 ''
