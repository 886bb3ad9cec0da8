#!/bin/sh
# The tests that run against every wheel, on an emulated ARM processor: tools/on_aarch64.sh [pytest arguments]
#
# For Debian 12 and its like, x86-64, as root where an ARM program is to start others (/proc/sys/fs/binfmt_misc). The core
# is cross-compiled from the C code that `make develop` leaves, for Debian's own Python, which is unpacked into
# build/aarch64 with the wheels that tests need; nothing is installed. Emulation is slow (about ten minutes), and takes
# memory that tests/mock/test_hostile_brokers.py counts as kprod's: that is left out.
set -eu
cd "$(dirname "$0")/.."
here=$PWD/build/aarch64
root=$here/root
mkdir -p "$here/debs/partial" "$here/lists/partial" "$root"

for program in aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static apt-get:apt; do
    command -v "${program%%:*}" >/dev/null || { echo "$0: ${program%%:*} is missing: apt-get install ${program##*:}" >&2; exit 1; }
done
ls src/kprod/_core/*.c >/dev/null 2>&1 || { echo "$0: no C code in src/kprod/_core: make develop" >&2; exit 1; }

# Packages of another architecture, without telling the system of it.
apt() {
    apt-get -q -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::status=/dev/null \
        -o Dir::State::lists="$here/lists" -o Dir::Cache="$here" -o APT::Sandbox::User= "$@"
}
if [ ! -x "$root/usr/bin/python3.11" ]; then
    apt update
    (cd "$here/debs" && apt download libc6 python3.11 python3.11-minimal libpython3.11-stdlib libpython3.11-minimal \
        libpython3.11-dev libexpat1 zlib1g libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libncursesw6 libtinfo6 \
        libreadline8 libuuid1 libdb5.3 libnsl2 libtirpc3 libcrypt1 libgcc-s1 libstdc++6 libkrb5-3 libk5crypto3 \
        libkrb5support0 libgssapi-krb5-2 libcom-err2 libkeyutils1)
    for package in "$here"/debs/*.deb; do dpkg -x "$package" "$root"; done
    # Apart from the C library's headers there, which the compiler has its own of.
    mkdir -p "$here/include/aarch64-linux-gnu"
    cp -r "$root/usr/include/aarch64-linux-gnu/python3.11" "$here/include/aarch64-linux-gnu/"
fi
[ -d "$here/site" ] || .venv/bin/python -m pip install -q --target "$here/site" --only-binary :all: --python-version 3.11 \
    --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --platform any \
    cramjam zstandard lz4 pytest pytest-timeout hypothesis kafka-python crc32c cryptography

rm -rf "$here/lib" && mkdir -p "$here/lib" && cp -r src/kprod "$here/lib/" && find "$here/lib" -name '*.so' -delete
for module in src/kprod/_core/*.pyx; do
    name=$(basename "$module" .pyx)
    extra=
    [ "$name" = crc32c ] && extra=src/kprod/_core/csrc/kp_crc32c.c
    # shellcheck disable=SC2086
    aarch64-linux-gnu-gcc -shared -fPIC -std=c11 -fvisibility=hidden -fno-strict-aliasing -pthread -O3 -DNDEBUG -Wall \
        -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers -Wno-unused-function \
        -Wno-cast-function-type -Wno-sign-compare -I "$root/usr/include/python3.11" -I "$here/include" \
        -I src/kprod/_core/csrc "src/kprod/_core/$name.c" $extra -ldl \
        -o "$here/lib/kprod/_core/$name.cpython-311-aarch64-linux-gnu.so"
done

binfmt=/proc/sys/fs/binfmt_misc
[ -e $binfmt/register ] || mount -t binfmt_misc none $binfmt || echo "$0: tests that start Python will fail" >&2
[ -e $binfmt/qemu-aarch64 ] || sed 's/:[A-Z]*$/:OF/; s#:/usr/[^:]*:#:/usr/bin/qemu-aarch64-static:#' \
    /usr/lib/binfmt.d/qemu-aarch64.conf >$binfmt/register || true
# Tests of C headers compile with `cc`.
mkdir -p "$here/bin" && ln -sf "$(command -v aarch64-linux-gnu-gcc)" "$here/bin/cc"

export QEMU_LD_PREFIX="$root" PYTHONPATH="$here/lib:$here/site" PYTHONDONTWRITEBYTECODE=1 PATH="$here/bin:$PATH"
exec qemu-aarch64-static "$root/usr/bin/python3.11" -m pytest @tests/portable.args -q -p no:cacheprovider \
    --ignore tests/mock/test_hostile_brokers.py --ignore tests/unit/test_packaging.py "$@"
