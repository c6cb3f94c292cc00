"""A build, possibly of another machine: its programs, its libraries, its commit."""
import glob
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = {"kernel": "carousel_kernel_tests", "engine": "carousel_engine_tests",
         "model": "carousel_model_tests"}
PROGRAMS = [*TESTS.values(), "carousel_bench", "carousel"]
# Built only if cuDNN's headers were found.
OPTIONAL = ["lstm_vs_cudnn"]
PACKED_MIB = 50
# Libraries that every Linux machine has, and those of the GPU's driver.
NOT_PACKED = re.compile(r"(linux-vdso|ld-linux\S*|lib(c|m|dl|rt|pthread)|lib(cu|nv)\w*)\.so")
# Loaded by dlopen, so that ldd does not list them.
LOADED_LATER = ("libcudnn.so.9", "libnvrtc.so.*", "libcublas.so.*", "libcublasLt.so.*")


class Problem(Exception):
    """An error that ends the whole call; printed as one line."""


def output(*command):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except subprocess.CalledProcessError as error:
        words = (error.stderr.strip() or f"status {error.returncode}").splitlines()[-1]
        raise Problem(f"{pathlib.Path(command[0]).name}: {words}") from error
    except OSError as error:
        raise Problem(f"{command[0]}: {error.strerror}") from error


def cuda_folders():
    """Folders that may have CUDA's libraries: those of Python's packages, then the toolkit's."""
    folders = [folder for place in sys.path for folder in glob.glob(f"{place}/nvidia/*/lib")]
    return folders + glob.glob("/usr/local/cuda*/lib64")


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def has_library(name):
    return any(os.path.exists(f"{folder}/{name}")
               for folder in [*cuda_folders(), "/usr/lib/x86_64-linux-gnu", "/usr/lib64"])


class Build:
    def __init__(self, folder):
        self.folder = folder
        kind = "" if folder.name == "cuda" else f"_{folder.name}"
        self.archive = folder.parent / f"gpu_check{kind}.tar.xz"
        self.commit_file = folder / "commit"
        self.archive_file = folder / "archive"  # names the archive with the same programs

    def program(self, name):
        return self.folder / "bin" / name

    def programs(self):
        for name in PROGRAMS:
            if not self.program(name).is_file():
                raise Problem(f"{self.program(name)} is missing, expected a whole build")
        return [*PROGRAMS, *(name for name in OPTIONAL if self.program(name).is_file())]

    def libraries(self):
        """The libraries that the programs load, as {name: path}; None if a library is missing."""
        found = {}
        for program in self.programs():
            for line in output("ldd", str(self.program(program))).splitlines():
                name, _, place = line.strip().partition(" => ")
                found[name] = None if "not found" in place else place.split(" (")[0]
        return found

    def commit(self):
        """The commit of its sources: the packed one, or the working tree's if built since then."""
        built = max(self.program(name).stat().st_mtime for name in self.programs())
        if self.commit_file.is_file() and built < self.commit_file.stat().st_mtime + 1:
            return self.commit_file.read_text().strip()
        changed = ", changed" if output("git", "-C", str(ROOT), "status", "--porcelain") else ""
        return output("git", "-C", str(ROOT), "rev-parse", "HEAD") + changed

    def pack(self):
        """Makes the archive: stripped programs and all libraries but CUDA's."""
        programs, commit, folder = self.programs(), self.commit(), self.folder / "packed"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier call
        (folder / "bin").mkdir(parents=True)
        for name in programs:
            shutil.copy(self.program(name), folder / "bin")
        # What the build makes to be loaded later, and what the programs load.
        libraries = {file.name: file for file in self.folder.glob("lib/*.so*")}
        libraries.update((name, path) for name, path in self.libraries().items()
                         if path and not NOT_PACKED.match(name))
        (folder / "lib").mkdir()
        for name, path in libraries.items():
            shutil.copy(path, folder / "lib" / name)
        for file in folder.glob("*/*"):
            output("strip", "--strip-unneeded", str(file))
        (folder / "commit").write_text(commit + "\n")  # last: see commit()
        with tarfile.open(self.archive, "w:xz") as archive:
            for name in ("bin", "lib", "commit"):
                archive.add(folder / name, name)
        self.archive_file.write_text(digest(self.archive))
        mib = self.archive.stat().st_size / 2**20
        if mib > PACKED_MIB:
            raise Problem(f"the archive has {mib:.0f} MiB, expected at most {PACKED_MIB}")
        missing = [name for name in OPTIONAL if name not in programs]
        return (f"to carry: {os.path.relpath(self.archive, ROOT)}, {mib:.0f} MiB, of commit {commit}"
                f"{'; without ' + ', '.join(missing) if missing else ''}")

    def unpack(self):
        """Unpacks the archive unless its programs are there already."""
        if not self.archive.is_file():
            return
        found = digest(self.archive)
        if self.archive_file.is_file() and self.archive_file.read_text() == found:
            return
        with tarfile.open(self.archive) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(self.folder)
        self.archive_file.write_text(found)

    def find_libraries(self):
        """Adds the folders of CUDA's libraries to the loader's path."""
        needed = [name for name, path in self.libraries().items() if path is None]
        holders = [f for f in cuda_folders()
                   if any(glob.glob(f"{f}/{name}") for name in [*needed, *LOADED_LATER])]
        if holders:
            old = os.environ.get("LD_LIBRARY_PATH")
            os.environ["LD_LIBRARY_PATH"] = ":".join([*holders, *([old] if old else [])])
        missing = [name for name, path in self.libraries().items() if path is None]
        if missing:
            raise Problem(f"{', '.join(missing)} not found, neither in /usr/local/cuda* nor among "
                          "Python's packages (pip install nvidia-cublas)")
