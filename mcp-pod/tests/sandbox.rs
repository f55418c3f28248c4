//! What a program can and cannot do in the sandbox, with the real binary, Python and Node.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mcp_pod::shim::sandbox::{Mounts, Profile, spawn};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const MCP_POD: &str = env!("CARGO_BIN_EXE_mcp-pod");

/// A directory outside /tmp with a workspace, a private directory and a file of the image.
struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::create_dir(root.path().join("workspace")).unwrap();
        std::fs::create_dir(root.path().join("private")).unwrap();
        for mounted in ["files", "scratch", "executable"] {
            std::fs::create_dir(root.path().join(mounted)).unwrap();
        }
        std::fs::write(root.path().join("files/settings"), "#!/bin/sh\necho ran\n").unwrap();
        std::fs::set_permissions(root.path().join("files/settings"), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(root.path().join("private/key"), "secret").unwrap();
        std::fs::write(root.path().join("image.txt"), "image").unwrap();
        std::fs::write(root.path().join("workspace/note.txt"), "note").unwrap();
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Runs a command in the sandbox, with this test as its monitor.
    fn run(&self, command: &[&str]) -> Output {
        self.run_with(&[], command)
    }

    /// Runs a command that may read only what is listed, if anything is.
    fn run_with(&self, readable: &[PathBuf], command: &[&str]) -> Output {
        self.run_serving(readable, None, command)
    }

    /// Runs a command that may listen on a port, if there is one.
    fn run_serving(&self, readable: &[PathBuf], port: Option<u16>, command: &[&str]) -> Output {
        let profile = Profile {
            workspace: Some(self.path("workspace")),
            mounts: Mounts {
                files: vec![self.path("files")],
                scratch: vec![self.path("scratch")],
                executable_scratch: vec![self.path("executable")],
            },
            private: vec![self.path("private")],
            readable: readable.to_vec(),
            max_processes: 1000,
            port,
        };
        let command: Vec<_> = command.iter().map(OsString::from).collect();
        let (child, _monitor) = spawn(Path::new(MCP_POD), &profile, &command, |command| {
            command.current_dir(self.path("workspace")).env("ROOT", self.root.path()).env("HOME", "/tmp");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        })
        .unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs Python code with the helpers and returns what it printed.
    fn python(&self, code: &str) -> String {
        self.serving_python(None, code)
    }

    /// Runs Python code that may listen on a port.
    fn serving_python(&self, port: Option<u16>, code: &str) -> String {
        let program = format!("{HELPERS}\n{code}");
        let output = self.run_serving(&[], port, &["/usr/bin/python3", "-c", &program]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {stderr}", output.status);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// `attempt` prints the name of the errno, or `ok`. `call` makes a system call by number.
const HELPERS: &str = r#"
import ctypes, errno, os, socket, sys
root = os.environ["ROOT"]
libc = ctypes.CDLL(None, use_errno=True)
def attempt(f):
    try:
        f(); print("ok")
    except OSError as e:
        print(errno.errorcode.get(e.errno, e.errno))
def call(*args):
    ctypes.set_errno(0)
    if libc.syscall(*args) < 0:
        raise OSError(ctypes.get_errno(), "syscall")
"#;

/// Outside a container, the root file system has files that are none of the server's business.
#[test]
fn a_list_of_what_is_readable_closes_everything_else() {
    let fixture = Fixture::new();
    let system = ["/usr", "/lib", "/lib64", "/bin"].map(PathBuf::from);
    let read = |readable: &[PathBuf], name: &str| {
        let output = fixture.run_with(readable, &["/usr/bin/cat", fixture.path(name).to_str().unwrap()]);
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(read(&system, "image.txt"), "");
    assert_eq!(read(&system, "workspace/note.txt"), "note");
    let with = |path: PathBuf| [&system[..], &[path]].concat();
    assert_eq!(read(&with(fixture.path("image.txt")), "image.txt"), "image");
    // What is private stays private, whatever is listed.
    assert_eq!(read(&with(fixture.path("private")), "private/key"), "");
    assert_eq!(read(&with(fixture.path("")), "private/key"), "");
    assert_eq!(read(&with(fixture.path("")), "image.txt"), "image");
    assert_eq!(read(&with("/proc/1".into()), "image.txt"), "");
}

#[test]
fn mounted_directories_can_be_used_as_declared() {
    let seen = Fixture::new().python(
        r##"
import subprocess
def run(path):
    attempt(lambda: subprocess.run([path], check=True, stdout=sys.stderr))
print(open(root + "/files/settings").read().split()[-1])
attempt(lambda: open(root + "/files/settings", "a"))
attempt(lambda: open(root + "/files/new", "w"))
run(root + "/files/settings")
for scratch in ["scratch", "executable"]:
    path = root + "/" + scratch + "/made"
    with open(path, "w") as made:
        made.write("#!/bin/sh\nexit 0\n")
    os.chmod(path, 0o755)
    run(path)
    attempt(lambda: os.symlink("/etc/passwd", root + "/" + scratch + "/link"))
"##,
    );
    assert_eq!(seen, "ran\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nok\nEACCES");
}

#[test]
fn the_image_is_readable_and_the_workspace_writable() {
    let fixture = Fixture::new();
    let seen = fixture.python(
        r#"
print(open(root + "/image.txt").read())
attempt(lambda: open(root + "/image.txt", "w"))
attempt(lambda: open(root + "/new.txt", "w"))
attempt(lambda: open("/etc/new.txt", "w"))
open("made.txt", "w").write("made"); print(open(root + "/workspace/made.txt").read())
import tempfile; tempfile.NamedTemporaryFile(dir="/tmp").close(); print("temporary")
"#,
    );
    assert_eq!(seen, "image\nEACCES\nEACCES\nEACCES\nmade\ntemporary");
}

#[test]
fn private_files_cannot_be_read_by_any_path() {
    let fixture = Fixture::new();
    // A link to the private directory, as a hostile image could contain.
    std::os::unix::fs::symlink(fixture.path("private"), fixture.path("innocent")).unwrap();
    let seen = fixture.python(
        r#"
attempt(lambda: open(root + "/private/key"))
attempt(lambda: os.listdir(root + "/private"))
attempt(lambda: open(root + "/innocent/key"))
attempt(lambda: open("/proc/self/root" + root + "/private/key"))
attempt(lambda: os.link(root + "/private/key", "stolen"))
attempt(lambda: os.rename(root + "/private/key", "stolen"))
"#,
    );
    assert_eq!(seen, "EACCES\nEACCES\nEACCES\nEACCES\nEXDEV\nEACCES");
}

#[test]
fn links_and_devices_cannot_be_created_nor_written_files_executed() {
    let fixture = Fixture::new();
    let seen = fixture.python(
        r#"
attempt(lambda: os.symlink("/etc/passwd", "link"))
attempt(lambda: os.mkfifo("pipe"))
attempt(lambda: os.mknod("dev", 0o20600, os.makedev(1, 3)))
open("x.sh", "w").write('#!/bin/sh'); os.chmod("x.sh", 0o755)
attempt(lambda: os.execv("./x.sh", ["x"]))
"#,
    );
    assert_eq!(seen, "EACCES\nEACCES\nEACCES\nEACCES");
}

#[test]
fn ordinary_moves_inside_the_workspace_work() {
    let fixture = Fixture::new();
    let seen = fixture.python(
        r#"
os.makedirs("a/b"); os.makedirs("c")
open("a/b/file", "w").write("1")
os.rename("a/b/file", "c/file"); os.rename("a/b", "c/b"); os.link("c/file", "c/b/again")
os.remove("c/file"); os.rmdir("a"); print(open("c/b/again").read())
"#,
    );
    assert_eq!(seen, "1");
}

#[test]
fn there_is_no_network() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Fixture::new().python(&format!(
        r#"
attempt(lambda: socket.create_connection(("127.0.0.1", {port}), timeout=2))
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, 40):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        attempt(lambda: socket.socket(family, kind))
attempt(lambda: call(41, 2, 1, 262))  # socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP)
"#
    ));
    assert_eq!(seen.lines().count(), 17);
    assert!(seen.lines().all(|line| line == "EAFNOSUPPORT"), "{seen}");
}

/// A port of 127.0.0.1 that no other test uses: it is below those that the kernel gives to programs that ask for none, and the
/// socket keeps other tests from it.
fn reserve_port() -> (u16, std::net::UdpSocket) {
    (20_000..30_000).find_map(|port| Some((port, std::net::UdpSocket::bind(("127.0.0.1", port)).ok()?))).unwrap()
}

#[test]
fn a_server_is_reached_on_the_loopback_interface_only() {
    let fixture = Fixture::new();
    let (port, _reserved) = reserve_port();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let client = std::thread::spawn(move || {
        for address in [address, address] {
            // A connection may end unanswered with the listener before.
            let answered = || {
                let mut stream = std::net::TcpStream::connect(address)?;
                stream.write_all(b"hi")?;
                stream.read_exact(&mut [0; 2])
            };
            while answered().is_err() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    });
    let seen = fixture.serving_python(
        Some(port),
        &format!(
            r#"
for host in ("0.0.0.0", "127.0.0.1"):
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    print(server.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16), server.get_inheritable())
    for device in (b"", b"lo\0", b"eth0\0"):
        attempt(lambda: server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device))
    server.bind((host, {port})); server.listen()
    peer = server.accept()[0]
    text = peer.recv(2).decode(); peer.send(b"ok")
    print(text, peer.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16))
    peer.close(); server.close()
"#
        ),
    );
    client.join().unwrap();
    let expected = "b'lo\\x00' False\nEPERM\nEPERM\nEPERM\nhi b'lo\\x00'\n";
    assert_eq!(seen, expected.repeat(2).trim());
}

#[test]
fn a_server_cannot_connect_nor_listen_elsewhere() {
    let fixture = Fixture::new();
    let (port, _reserved) = reserve_port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = fixture.path("workspace/socket");
    let _unix = std::os::unix::net::UnixListener::bind(&unix).unwrap();
    let seen = fixture.serving_python(
        Some(port),
        &format!(
            r#"
FASTOPEN = 0x20000000
tcp = lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)
there = ("127.0.0.1", {open})
print("connect"); attempt(lambda: tcp().connect(there))
print("fast open")
attempt(lambda: tcp().sendto(b"x", FASTOPEN, there))
attempt(lambda: tcp().sendmsg([b"x"], [], FASTOPEN, there))
attempt(lambda: tcp().send(b"x", FASTOPEN))
attempt(lambda: call(307, tcp().fileno(), 0, 1, FASTOPEN))  # sendmmsg
print("without fast open"); attempt(lambda: tcp().sendmsg([b"x"], [], socket.MSG_NOSIGNAL, there))
print("other ports")
for other in (0, 80, {open}, 8443, 9090, {port} + 1):
    attempt(lambda: tcp().bind(("0.0.0.0", other)))
print("other protocols")
# One of IPv6 would be tied to another interface by bind(("fe80::1", port, 0, index)).
for family in (socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET, 40, 44):
    attempt(lambda: socket.socket(family, socket.SOCK_STREAM))
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
    attempt(lambda: socket.socket(socket.AF_INET, kind))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))  # MPTCP
print("other layers"); attempt(lambda: tcp().setsockopt(socket.IPPROTO_TCP, 31, b"tls\0"))
print("flags")
a = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
print(os.get_blocking(a.fileno()), a.get_inheritable())
fd = libc.syscall(41, socket.AF_INET, socket.SOCK_STREAM, 0); print(os.get_blocking(fd), os.get_inheritable(fd))
print("too many")
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 20, fd + 20))
def many():
    all = [tcp() for _ in range(100)]
attempt(many)
attempt(lambda: tcp().close())
"#
        ),
    );
    udp.set_nonblocking(true).unwrap();
    assert!(udp.recv(&mut [0; 1]).is_err());
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it was connected to");
    let expected = "connect\nEPERM\nfast open\nEPERM\nEPERM\nEPERM\nEPERM\nwithout fast open\nEPIPE\n\
        other ports\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\nEACCES\n\
        other protocols\nEAFNOSUPPORT\nEAFNOSUPPORT\nEAFNOSUPPORT\nEAFNOSUPPORT\nEAFNOSUPPORT\nEAFNOSUPPORT\n\
        EAFNOSUPPORT\nEAFNOSUPPORT\nEAFNOSUPPORT\nEPROTONOSUPPORT\nother layers\nEPERM\n\
        flags\nFalse False\nTrue True\ntoo many\nEMFILE\nok";
    assert_eq!(seen, expected);
}

#[test]
fn socket_pairs_work_but_cannot_connect_elsewhere() {
    let fixture = Fixture::new();
    let path = fixture.path("workspace/socket");
    let _listener = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let seen = fixture.python(
        r#"
a, b = socket.socketpair(); a.send(b"hi"); print(b.recv(2).decode())
attempt(lambda: a.connect(root + "/workspace/socket"))
attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
attempt(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW))
import asyncio
async def main():
    process = await asyncio.create_subprocess_exec("/bin/echo", "child", stdout=asyncio.subprocess.PIPE)
    print((await process.communicate())[0].decode().strip())
asyncio.run(main())
"#,
    );
    assert_eq!(seen, "hi\nEPERM\nEAFNOSUPPORT\nEAFNOSUPPORT\nchild");
}

#[test]
fn processes_outside_the_sandbox_are_out_of_reach() {
    let fixture = Fixture::new();
    // This test process takes the role of the shim: the same uid, outside the sandbox.
    let pid = std::process::id();
    let seen = fixture.python(&format!(
        r#"
for name in ("environ", "mem", "maps", "auxv"):
    attempt(lambda: open("/proc/{pid}/" + name, "rb").read(1))
attempt(lambda: os.listdir("/proc/{pid}/root/etc"))
for name in ("fd/0", "cwd", "exe"):
    attempt(lambda: os.readlink("/proc/{pid}/" + name))
attempt(lambda: os.kill({pid}, 0))
attempt(lambda: os.kill({pid}, 9))
import resource
attempt(lambda: resource.prlimit({pid}, resource.RLIMIT_CPU, (1, 1)))
attempt(lambda: os.setpriority(os.PRIO_PROCESS, {pid}, 19))
attempt(lambda: os.setpriority(os.PRIO_USER, 0, 19))
attempt(lambda: os.sched_setaffinity({pid}, [0]))
attempt(lambda: os.sched_setscheduler({pid}, os.SCHED_IDLE, os.sched_param(0)))
attempt(lambda: os.pidfd_open({pid}) and call(438, os.pidfd_open({pid}), 0, 0))
attempt(lambda: call(251, 1, {pid}, 0))  # ioprio_set
attempt(lambda: call(101, 16, {pid}, 0, 0))  # ptrace(PTRACE_ATTACH)
attempt(lambda: call(310, {pid}, 0, 0, 0, 0, 0))  # process_vm_readv
"#
    ));
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines.len(), 19);
    assert!(lines.iter().all(|line| ["EACCES", "EPERM"].contains(line)), "{seen}");
}

#[test]
fn a_program_can_signal_and_limit_itself_and_its_children() {
    let seen = Fixture::new().python(
        r#"
import subprocess, signal, resource
child = subprocess.Popen(["/bin/sleep", "60"]); child.send_signal(signal.SIGTERM); print(child.wait())
attempt(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)))
attempt(lambda: os.setpriority(os.PRIO_PROCESS, 0, 5))
print([line.split()[1] for line in open("/proc/self/status") if line[:4] in ("CapE", "CapP", "CapI", "CapA", "NoNe", "Secc")])
print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE))
"#,
    );
    assert_eq!(
        seen,
        "-15\nok\nok\n['0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000', '1', '2', '4']\n(0, 0) (4096, 4096)"
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn risky_system_calls_are_denied() {
    let seen = Fixture::new().python(
        r#"
for number, args in {
    "unshare": (272, 0x10000000), "clone": (56, 0x10000000, 0, 0, 0, 0), "clone3": (435, 0, 0), "mount": (165, 0, 0, 0, 0, 0),
    "open_tree": (428, -100, b"/", 1), "io_uring": (425, 8, 0), "bpf": (321, 0, 0, 0), "keyctl": (250, 0, -3, 0),
    "shmget": (29, 0, 4096, 0o1600), "mq_open": (240, b"/q", 0o102, 0o600, 0), "by_handle": (304, -100, 0, 0),
    "userfaultfd": (323, 0), "perf": (298, 0, 0, 0, 0, 0), "personality": (135, 0x0040000), "tiocsti": (16, 0, 0x5412, b"x"),
    "unknown": (470, 0), "x32 socket": (0x40000000 + 41, 2, 1, 0), "sendto": (44, 1, 0, 0, 0, b"x", 1),
}.items():
    try:
        call(*args); print(number, "ok")
    except OSError as e:
        print(number, errno.errorcode[e.errno])
"#,
    );
    for line in seen.lines() {
        let (name, errno) = line.rsplit_once(' ').unwrap();
        let expected = match name {
            "clone3" | "io_uring" | "unknown" | "x32 socket" => "ENOSYS",
            _ => "EPERM",
        };
        assert_eq!(errno, expected, "{name}");
    }
    assert_eq!(seen.lines().count(), 18);
}

/// Calls `socket(AF_INET)` through the 32-bit entry of the kernel, which has different call numbers.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_32_bit_entry_does_not_bypass_the_filter() {
    let fixture = Fixture::new();
    let seen = fixture.python(
        r#"
import mmap
# mov eax, 359 (socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; ret, with rbx saved
code = b"\x53\xb8\x67\x01\x00\x00\xbb\x02\x00\x00\x00\xb9\x01\x00\x00\x00\x31\xd2\xcd\x80\x5b\xc3"
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC); page.write(code)
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
print(errno.errorcode[-function()])
"#,
    );
    assert_eq!(seen, "ENOSYS");
}

#[test]
fn descriptors_are_not_inherited() {
    let fixture = Fixture::new();
    let leaked = std::fs::File::open(fixture.path("private")).unwrap();
    fcntl_setfd(&leaked, FdFlags::empty()).unwrap();
    let output = fixture.run(&["/bin/ls", "/proc/self/fd"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n3\n", "descriptor 3 is opened by ls");
}

#[test]
fn node_runs_and_starts_children() {
    let output = Fixture::new().run(&[
        "node",
        "-e",
        "require('fs').writeFileSync('out', 'x'); \
         const c = require('child_process').spawnSync('/bin/echo', ['child']); \
         console.log('hello', c.stdout.toString().trim(), require('os').cpus().length > 0)",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "hello child true", "{stderr}");
}

#[test]
fn nothing_runs_if_the_sandbox_cannot_be_set_up() {
    let (socket, _monitor) = pair();
    let (unmonitored, _) = pair();
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    fcntl_setfd(&file, FdFlags::empty()).unwrap();
    let [number, unmonitored, file] = [&socket, &unmonitored, &file].map(|fd| fd.as_raw_fd().to_string());
    for (monitor, workspace, private) in [
        (&*number, "/", "/mcp-fleet"),
        (&number, "/does/not/exist", "/mcp-fleet"),
        (&number, "/usr", "/usr/bin"),
        (&number, "/var", "/tmp/x"),
        (&unmonitored, "/opt", "/mcp-fleet"),
        (&file, "/opt", "/mcp-fleet"),
        ("1", "/opt", "/mcp-fleet"),
        ("999", "/opt", "/mcp-fleet"),
    ] {
        let output = Command::new(MCP_POD)
            .args(["sandbox-exec", "--monitor", monitor, "--workspace", workspace, "--private", private])
            .args(["--", "/bin/echo", "ran"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(125), "{monitor} {workspace}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let output = Command::new(MCP_POD).args(["sandbox-exec", "--", "/bin/echo", "ran"]).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "without a monitor");
}

/// Returns a socket that a child process inherits, and its other end.
fn pair() -> (OwnedFd, OwnedFd) {
    let (socket, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    fcntl_setfd(&socket, FdFlags::empty()).unwrap();
    (socket, other)
}

#[test]
fn without_its_monitor_a_program_cannot_create_processes_or_threads() {
    let (socket, monitor) = pair();
    let program = format!(
        r#"{HELPERS}
import threading
print("started", flush=True)
sys.stdin.readline()
attempt(os.fork)
attempt(lambda: os.posix_spawn("/bin/true", ["true"], {{}}))
attempt(lambda: call(57))  # fork
attempt(lambda: call(58))  # vfork
try:
    threading.Thread(target=print).start(); print("ok")
except RuntimeError as e:
    print(e)
"#
    );
    let mut child = Command::new(MCP_POD)
        .args(["sandbox-exec", "--monitor", &socket.as_raw_fd().to_string(), "--", "/usr/bin/python3", "-c", &program])
        .env("ROOT", "/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(socket);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "started");
    // The listener was not received yet, and is closed with the socket.
    drop(monitor);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let seen: Vec<_> = lines.collect();
    assert_eq!(seen, ["ENOSYS", "ENOSYS", "ENOSYS", "ENOSYS", "can't start new thread"]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_error_names_a_missing_command() {
    let output = Fixture::new().run(&["/no/such/command"]);
    assert_eq!((output.status.code(), output.status.signal()), (Some(127), None));
    assert!(Path::new("/proc").exists() && String::from_utf8_lossy(&output.stderr).contains("/no/such/command"));
}
