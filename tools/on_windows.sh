#!/bin/sh
# Tests under Wine, with a core that MinGW compiled: tools/on_windows.sh [pytest arguments]
#
# For Debian 12 and its like. CPython for Windows comes from Maven Central (JavaCPP's presets, 24 MB) into build/windows,
# with the wheels that tests need; the core from the C code that `make develop` leaves. That is not what users get, which
# Microsoft's compiler makes on Windows (.github/workflows), but it finds what cannot compile or work there at all. Left
# out: what needs cryptography, whose module Wine 8 does not load, what copies trees (CopyFile2 is missing there), and
# brokers that break the protocol, which take too long. One file at a time: Wine's server gives up now and then.
set -eu
cd "$(dirname "$0")/.."
here=$PWD/build/windows
python=$here/python
mkdir -p "$here"

for program in x86_64-w64-mingw32-gcc:gcc-mingw-w64-x86-64 wine:"wine wine64" mvn:maven unzip:unzip; do
    command -v "${program%%:*}" >/dev/null || { echo "$0: ${program%%:*} is missing: apt-get install ${program##*:}" >&2; exit 1; }
done
ls src/kprod/_core/*.c >/dev/null 2>&1 || { echo "$0: no C code in src/kprod/_core: make develop" >&2; exit 1; }

if [ ! -d "$python" ]; then
    mvn -q dependency:copy -Dartifact=org.bytedeco:cpython:3.13.5-1.5.12:jar:windows-x86_64 -DoutputDirectory="$here"
    unzip -q -o "$here"/cpython-*-windows-x86_64.jar -d "$here/jar"
    # Wine has no WMI, and not the function that Rust's programs take random numbers from.
    rm "$here/jar/org/bytedeco/cpython/windows-x86_64/lib/_wmi.pyd"
    cat >"$here/random.c" <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE p, SIZE_T n) { return SystemFunction036(p, (ULONG)n); }
C
    x86_64-w64-mingw32-gcc -shared -O2 "$here/random.c" -ladvapi32 \
        -o "$here/jar/org/bytedeco/cpython/windows-x86_64/bcryptprimitives.dll"
    mv "$here/jar/org/bytedeco/cpython/windows-x86_64" "$python"
fi
[ -d "$here/site" ] || .venv/bin/python -m pip install -q --target "$here/site" --only-binary :all: --python-version 3.13 \
    --platform win_amd64 cramjam zstandard lz4 pytest pytest-timeout hypothesis kafka-python crc32c colorama

rm -rf "$here/lib" && mkdir -p "$here/lib" && cp -r src/kprod "$here/lib/" && find "$here/lib" -name '*.so' -delete
for module in src/kprod/_core/*.pyx; do
    name=$(basename "$module" .pyx)
    extra=
    [ "$name" = crc32c ] && extra=src/kprod/_core/csrc/kp_crc32c.c
    # Python.h declares nothing in one place for this compiler, and says so (the warning without a name).
    # shellcheck disable=SC2086
    x86_64-w64-mingw32-gcc -shared -static-libgcc -std=gnu11 -O2 -DNDEBUG -w -I "$python/include" \
        -I src/kprod/_core/csrc "src/kprod/_core/$name.c" $extra "$python/python313.dll" -lws2_32 \
        -o "$here/lib/kprod/_core/$name.cp313-win_amd64.pyd"
done

export WINEPREFIX="$here/wine" WINEARCH=win64 WINEDEBUG=-all PYTHONDONTWRITEBYTECODE=1
[ -d "$WINEPREFIX" ] || wine winecfg -v win10
PYTHONPATH="Z:$(echo "$here/lib" | tr / '\\');Z:$(echo "$here/site" | tr / '\\')"
export PYTHONPATH
# Python does not start with an input that Wine cannot make a handle of, or an output that is a file.
[ -p "$here/input" ] || mkfifo "$here/input"
exec 7<>"$here/input"
failed=0
for file in tests/unit/test_*.py tests/property/test_*.py tests/mock/test_*.py; do
    grep -q -e "--ignore=$file" tests/portable.args && continue
    case $file in
    */test_transactions*.py | */test_tls*.py | */test_packaging.py | */test_hostile_brokers.py) continue ;;
    esac
    echo "== $file"
    timeout 300 wine "$python/python.exe" -m pytest --confcutdir=tests/unit -q -p no:cacheprovider --timeout 120 "$@" "$file" \
        <&7 2>&1 | tee "$here/said"
    # Nothing to run there is no failure.
    grep -qE "^[0-9]+ (passed|skipped|deselected)|no tests ran" "$here/said" && ! grep -qE "^[0-9]+ failed|[0-9]+ errors?" "$here/said" ||
        failed=$((failed + 1))
done
echo "$failed files with failures"
[ $failed -eq 0 ]
