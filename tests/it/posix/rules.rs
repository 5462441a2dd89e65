//! Rules of the manual pages, as Python scripts that run on the mount and on a local file system and must print the same.
//! (`truncate` to the size that there is moves no times, as truncate(2) says; ext4 moves them.)

use super::{mounted, printed};

/// What the scripts share: `says` prints a line, `tried` an error by its name or what a call answers.
const PRELUDE: &str = r#"
import ctypes, errno, fcntl, mmap, os, resource, signal, struct, sys, time
def says(*words): print(*words, flush=True)
def tried(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
def child(work):
    """Does it in another process; answers how that ended."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work() or 0)
        except OSError as error:
            os._exit(100 + error.errno % 100)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)
def new(name, size=0):
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.pwrite(descriptor, bytes(number % 251 for number in range(size)), 0)
    return descriptor
"#;

fn same_as_local(script: &str) {
    super::same_as_local("python3", &format!("{PRELUDE}\n{script}"));
}

#[test]
fn byte_range_locks() {
    same_as_local(
        r#"
GET, SET = 36, 37  # F_OFD_GETLK, F_OFD_SETLK
def lock(kind, start, length): return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
def ofd(descriptor, kind, start, length):
    found = tried(fcntl.fcntl, descriptor, SET, lock(kind, start, length))
    return found if isinstance(found, str) else "done"
def posix(descriptor, kind, start, length): return tried(fcntl.lockf, descriptor, kind | fcntl.LOCK_NB, length, start)
first = new("f", 1000)
second = os.open("f", os.O_RDWR)
# Those of descriptions: between two of one process, too.
says(ofd(first, fcntl.F_WRLCK, 0, 100), ofd(second, fcntl.F_WRLCK, 50, 10), ofd(second, fcntl.F_WRLCK, 100, 10))
says(ofd(second, fcntl.F_RDLCK, 200, 50), ofd(first, fcntl.F_RDLCK, 200, 50), ofd(first, fcntl.F_WRLCK, 210, 1))
kind, _whence, start, length, _pid = struct.unpack("hhqqi4x", fcntl.fcntl(second, GET, lock(fcntl.F_WRLCK, 0, 0)))
says("holder", kind, start, length)
# A part is given back; what is left of both sides stays.
says(ofd(first, fcntl.F_UNLCK, 40, 20), ofd(second, fcntl.F_WRLCK, 45, 10), ofd(second, fcntl.F_WRLCK, 30, 5), ofd(second, fcntl.F_WRLCK, 60, 5))
copy = os.dup(first)
os.close(first)
says("a copy holds them", ofd(second, fcntl.F_WRLCK, 0, 1))
os.close(copy)
says("the last is closed", ofd(second, fcntl.F_WRLCK, 0, 1))
# Those of processes: gone with the first descriptor that is closed, and not for children.
os.close(second)
first, second = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
says(posix(first, fcntl.LOCK_EX, 0, 10), posix(second, fcntl.LOCK_EX, 0, 10))
other = lambda start: child(lambda: fcntl.lockf(os.open("f", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start))
says("children", other(0), other(9), other(10))
own = f":{os.stat('f').st_ino} "
says("known to the kernel", sum(own in line for line in open("/proc/locks")))
os.close(second)
says("after a close", other(0), sum(own in line for line in open("/proc/locks")))
read_only = os.open("f", os.O_RDONLY)
says("writing through a reader", tried(fcntl.lockf, read_only, fcntl.LOCK_EX | fcntl.LOCK_NB))
# One that waits gets it when it is free.
fcntl.lockf(first, fcntl.LOCK_EX)
pid = os.fork()
if pid == 0:
    fcntl.lockf(os.open("f", os.O_RDWR), fcntl.LOCK_EX)
    os._exit(7)
time.sleep(0.1)
says("waits", os.waitpid(pid, os.WNOHANG)[0] == 0)
fcntl.lockf(first, fcntl.LOCK_UN)
says("goes on", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"#,
    );
}

#[test]
fn mappings_and_sizes() {
    same_as_local(
        r#"
page = mmap.PAGESIZE
descriptor = new("f", 4 * page)
shared = mmap.mmap(descriptor, 4 * page)
os.ftruncate(descriptor, 3 * page + 100)
private = mmap.mmap(descriptor, 3 * page, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
shared[10:14] = b"here"
says(os.pread(descriptor, 6, 9), private[10:14])
private[20:24] = b"mine"
says(os.pread(descriptor, 4, 20), shared[20:24] == b"mine")
os.pwrite(descriptor, b"written", page)
says(shared[page:page + 7], private[page:page + 7])
# Behind the end, in the last page, there are zeros. (What is stored there shows if the file is extended while the page is in the
# cache: of file systems in user space the kernel does not clear it.)
says(bytes(shared[3 * page + 100:3 * page + 110]))
os.ftruncate(descriptor, page + 10)
says("still there", bytes(shared[page:page + 7]), bytes(shared[page + 10:page + 20]))
says("cut off", child(lambda: shared[2 * page]) == -signal.SIGBUS)
os.ftruncate(descriptor, 4 * page)
says("zeros again", bytes(shared[2 * page:2 * page + 4]), bytes(shared[page + 8:page + 14]))
shared[3 * page:3 * page + 3] = b"new"
shared.flush()
direct = os.open("f", os.O_RDWR | os.O_DIRECT)
buffer = mmap.mmap(-1, page)
says(os.preadv(direct, [buffer], 3 * page), buffer[:3])
buffer[:6] = b"direct"
says(os.pwritev(direct, [buffer], 0), shared[:6], os.pread(descriptor, 6, 0))
os.unlink("f")
shared[:5] = b"alive"
says(os.pread(descriptor, 5, 0), os.fstat(descriptor).st_nlink)
hole = new("h", 1)
os.ftruncate(hole, 2 * page)
says("a hole", mmap.mmap(hole, 2 * page)[page - 1:page + 1])"#,
    );
}

#[test]
fn which_call_moves_which_time() {
    same_as_local(
        r#"
def times(path):
    found = os.lstat(path)
    return found.st_mtime_ns, found.st_ctime_ns
def moved(name, paths, call):
    before = {path: times(path) for path in paths}
    time.sleep(0.02)
    answer = tried(call)
    after = [f"{path}: " + "".join(letter if one != two else "-" for letter, one, two in zip("mc", before[path], times(path))) for path in paths]
    says(name, answer if isinstance(answer, str) else "", *after)
os.mkdir("d"); os.mkdir("e")
f = new("d/f", 5000)
moved("create", ["d"], lambda: os.close(new("d/g")))
moved("mkdir", ["d"], lambda: os.mkdir("d/sub"))
moved("rmdir", ["d"], lambda: os.rmdir("d/sub"))
moved("symlink", ["d"], lambda: os.symlink("f", "d/s"))
moved("link", ["d", "d/f"], lambda: os.link("d/f", "d/l"))
moved("unlink one of two", ["d", "d/f"], lambda: os.unlink("d/l"))
moved("rename within", ["d", "d/g"], lambda: os.rename("d/g", "d/h") or os.rename("d/h", "d/g"))
moved("rename to itself", ["d", "d/g"], lambda: os.rename("d/g", "d/g"))
moved("rename across", ["d", "e"], lambda: os.rename("d/g", "e/g"))
moved("write", ["d", "d/f"], lambda: os.pwrite(f, b"x", 0))
moved("write nothing", ["d/f"], lambda: os.pwrite(f, b"", 0))
moved("read", ["d/f"], lambda: os.pread(f, 10, 0))
moved("truncate shorter", ["d/f"], lambda: os.ftruncate(f, 100))
moved("ftruncate to the same", ["d/f"], lambda: os.ftruncate(f, 100))
moved("open with O_TRUNC", ["d/f"], lambda: os.close(os.open("d/f", os.O_WRONLY | os.O_TRUNC)))
moved("open with O_TRUNC, empty", ["d/f"], lambda: os.close(os.open("d/f", os.O_WRONLY | os.O_TRUNC)))
moved("allocate", ["d/f"], lambda: os.posix_fallocate(f, 0, 8192))
moved("chmod", ["d/f"], lambda: os.chmod("d/f", 0o600))
moved("chmod to the same", ["d/f"], lambda: os.chmod("d/f", 0o600))
moved("chown", ["d/f"], lambda: os.chown("d/f", 1, 1))
moved("chown to nothing", ["d/f"], lambda: os.chown("d/f", -1, -1))
moved("set an attribute", ["d/f"], lambda: os.setxattr("d/f", "user.a", b"b"))
moved("read it", ["d/f"], lambda: os.getxattr("d/f", "user.a"))
moved("remove it", ["d/f"], lambda: os.removexattr("d/f", "user.a"))
moved("remove it again", ["d/f"], lambda: os.removexattr("d/f", "user.a"))
moved("set times", ["d/f"], lambda: os.utime("d/f", (5, 6)))
moved("set them to now", ["d/f"], lambda: os.utime("d/f"))
moved("list", ["d"], lambda: os.listdir("d") and None)
moved("create what is there", ["d"], lambda: os.mkdir("d/f"))
moved("unlink what is not there", ["d"], lambda: os.unlink("d/none"))
shared = mmap.mmap(f, 8192)
moved("store through a mapping", ["d/f"], lambda: (shared.__setitem__(0, 7), shared.flush()) and None)
g = new("d/copy")
moved("copy a range", ["d/f", "d/copy"], lambda: os.copy_file_range(f, g, 4096))
says(os.stat("d/f").st_atime_ns >= 0)"#,
    );
}

#[test]
fn limits_of_processes_and_paths() {
    same_as_local(
        r#"
def limited(size):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        descriptor = new(f"limited-{size}")
        says(size, "fits", tried(os.pwrite, descriptor, b"x" * 1000, 0), "partly", tried(os.pwrite, descriptor, b"x" * 1000, size - 10),
            "beyond", tried(os.pwrite, descriptor, b"x", size), "longer", tried(os.ftruncate, descriptor, size + 1),
            "allocated", tried(os.posix_fallocate, descriptor, 0, size + 1), "as long", tried(os.ftruncate, descriptor, size))
    says(child(work), os.stat(f"limited-{size}").st_size)
limited(4096); limited(100000); limited(1 << 20)
def killed():
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.pwrite(new("killed"), b"x", 10)
says("killed", child(killed) == -signal.SIGXFSZ)
# Deeper than any path can name.
home = os.getcwd()
os.mkdir("deep"); os.chdir("deep")
for level in range(5000):
    os.mkdir("d"); os.chdir("d")
os.close(new("f", 10))
says("no name for it", tried(os.stat, "/".join([home, "deep"] + ["d"] * 5000)))
depth = 0
while os.path.exists("d") or os.path.exists("f"):
    if os.path.exists("f"): os.unlink("f")
    if os.path.exists("d"): os.rmdir("d")
    os.chdir(".."); depth += 1
    if depth > 5001: break
says("up again", depth)
os.chdir(home)
says(os.listdir("deep"))
# Attributes as large as there are.
os.close(new("a"))
for size in (0, 1, 255, 2000):
    says(size, tried(os.setxattr, "a", f"user.n{size}", b"v" * size), len(os.getxattr("a", f"user.n{size}")))
says(tried(os.setxattr, "a", "user.big", b"v" * 65537), tried(os.setxattr, "a", "user." + "n" * 251, b""), tried(os.setxattr, "a", "nothing", b"v"))
says(tried(os.setxattr, "a", "user.", b"v"), sorted(os.listxattr("a")))
# Descriptors that may not do it.
reader, writer = os.open("a", os.O_RDONLY), os.open("a", os.O_WRONLY)
says(tried(os.write, reader, b"x"), tried(os.read, writer, 1), tried(os.ftruncate, reader, 0), tried(os.posix_fallocate, reader, 0, 1))
says(tried(os.pread, writer, 1, -1), tried(os.lseek, reader, -1, os.SEEK_SET), tried(os.lseek, reader, 5, os.SEEK_DATA), tried(os.ftruncate, writer, -1))
says(tried(os.open, "a", os.O_RDONLY | os.O_DIRECTORY), tried(os.open, ".", os.O_WRONLY), tried(os.listdir, "a"), tried(os.rmdir, "a"), tried(os.unlink, "deep"))
os.symlink("loop", "loop")
says(tried(os.open, "loop", os.O_RDONLY), tried(os.open, "loop", os.O_RDONLY | os.O_NOFOLLOW), tried(os.stat, "a/b"), tried(os.mkdir, "none/d"), tried(os.rename, "a", "deep"), tried(os.rename, "deep", "a"))"#,
    );
}

#[test]
fn privileges_fall_when_a_range_is_copied() {
    same_as_local(
        r#"
os.chmod(".", 0o777)
source = new("source", 10000)
for mode in (0o4777, 0o2777, 0o6777, 0o2767, 0o4677):
    for user in (0, 1002):
        os.close(new("f", 100)); os.chown("f", 1001, 2001); os.chmod("f", mode)
        target = os.open("f", os.O_RDWR)
        def work():
            os.setgroups([]); os.setgid(user); os.setuid(user)
            os.copy_file_range(source, target, 5000, 0, 0)
        says(oct(mode), user, child(work), oct(os.stat("f").st_mode))
        os.close(target); os.unlink("f")"#,
    );
}

#[test]
fn a_hundred_processes_at_once() {
    let volume = mounted();
    let script = r#"
import random
def work(number):
    rng, mine = random.Random(number), {}
    for step in range(60):
        name = f"d{rng.randrange(5)}/p{number}-{rng.randrange(8)}"
        kind = rng.randrange(6)
        if kind < 2 or not mine:
            data = bytes([number]) * rng.choice([0, 10, 4096, 70000])
            with open(name, "wb") as file:
                file.write(data)
                if rng.random() < 0.2: os.fsync(file.fileno())
            mine[name] = data
        elif kind == 2:
            old = rng.choice(list(mine)); os.rename(old, name); data = mine.pop(old); mine[name] = data
        elif kind == 3:
            old = rng.choice(list(mine)); os.unlink(old); mine.pop(old)
        elif kind == 4:
            old = rng.choice(list(mine))
            with open(old, "ab") as file: file.write(b"tail")
            mine[old] += b"tail"
        else:
            old = rng.choice(list(mine)); size = rng.randrange(1 + len(mine[old])); os.truncate(old, size); mine[old] = mine[old][:size]
        os.listdir(f"d{rng.randrange(5)}")
    for name, data in mine.items():
        if open(name, "rb").read() != data: return 1
    return 0
for number in range(5): os.mkdir(f"d{number}")
pids = {}
for number in range(100):
    pid = os.fork()
    if pid == 0:
        try: code = work(number)
        except BaseException as error: print(number, repr(error), file=sys.stderr, flush=True); code = 2
        os._exit(code)
    pids[pid] = number
wrong = [number for pid, number in pids.items() if os.waitpid(pid, 0)[1] != 0]
says("wrong", wrong)
sys.exit(len(wrong))"#;
    let found = printed("python3", &format!("{PRELUDE}\n{script}"), &volume.mnt());
    assert_eq!(found, "wrong []\n");
    volume.umount();
    volume.fsck();
}
