"""Builds the C extensions; everything else stands in pyproject.toml.

BLASTER_SANITIZE=1 builds them under AddressSanitizer and UndefinedBehaviorSanitizer,
BLASTER_WERROR=1 turns the warnings below into errors.
"""

import os
import shutil
import subprocess

from setuptools import Extension, setup

ABI3 = [("Py_LIMITED_API", "0x030B0000")]
CFLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Wconversion", "-Wno-cast-function-type"]
CFLAGS += ["-fvisibility=hidden"]
LDFLAGS = []
if os.environ.get("BLASTER_WERROR"):
    CFLAGS += ["-Werror"]
if os.environ.get("BLASTER_SANITIZE"):
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    CFLAGS += [*sanitizers, "-DBLASTER_SANITIZE", "-O1", "-g", "-fno-omit-frame-pointer"]
    LDFLAGS += sanitizers


def extension(name, sources, flags=(), libraries=()):
    return Extension(
        f"blaster.{name}",
        [f"native/{source}" for source in sources],
        depends=[f"native/{h}" for h in sorted(os.listdir("native")) if h.endswith(".h")],
        define_macros=ABI3,
        extra_compile_args=[*CFLAGS, *flags],
        extra_link_args=[*LDFLAGS, *libraries],
        py_limited_api=True,
    )


def pkg_config(packages, what):
    if not shutil.which("pkg-config"):
        return None
    found = subprocess.run(
        ["pkg-config", what, *packages.split()], capture_output=True, text=True, check=False
    )
    return found.stdout.split() if found.returncode == 0 else None


NATIVE = ["native_module.c", "columns_type.c", "columns.c", "template_type.c", "stamp.c"]
NATIVE += ["batches_type.c", "batches.c", "arrays.c"]
NATIVE += ["scanner_type.c", "scan.c", "json_scan.c", "idset.c"]
NATIVE += ["digits_functions.c", "digits.c"]
extensions = [extension("_native", NATIVE)]

# Optional: without libnghttp2 everything works on grpcio. zlib is for gzip from other clients.
nghttp2 = pkg_config("libnghttp2 zlib", "--libs")
if nghttp2 is not None:
    wire = ["wire_module.c", "wire_client_type.c"]
    wire += ["wire_client.c", "wire_greeting.c", "wire_links.c", "wire_requests.c", "wire_conn.c"]
    wire += ["wire_output.c", "wire_input.c", "wire_response.c"]
    wire += ["wire_headers.c", "wire_answer.c"]
    wire += ["wire_receiver_type.c", "wire_receiver.c", "scan.c", "json_scan.c", "idset.c"]
    wire += ["receiver_conn.c", "receiver_input.c", "receiver_frames.c", "receiver_messages.c"]
    wire += ["receiver_streams.c", "receiver_output.c", "receiver_head.c", "receiver_pool.c"]
    wire += ["receiver_capacity.c", "receiver_faults.c"]
    wire += ["h2_frame.c", "receiver_gunzip.c", "unzstd.c"]
    flags, libraries = pkg_config("libnghttp2 zlib", "--cflags") or [], [*nghttp2, "-lm"]
    zstd = pkg_config("libzstd", "--libs")
    if zstd is not None:
        libraries += zstd
        flags += ["-DBLASTER_ZSTD", *(pkg_config("libzstd", "--cflags") or ())]
    openssl = pkg_config("openssl", "--libs")
    wire += ["wire_tls.c"]
    if openssl is not None:
        libraries += openssl
        flags += ["-DBLASTER_TLS", *(pkg_config("openssl", "--cflags") or ())]
    extensions.append(extension("_wire", wire, flags=flags, libraries=libraries))

setup(ext_modules=extensions, options={"bdist_wheel": {"py_limited_api": "cp311"}})
