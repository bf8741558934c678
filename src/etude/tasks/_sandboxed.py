"""The inside of the sandbox: runs one program and answers calls of its functions. Started by `tasks.sandbox` as a script of
its own, in an interpreter that finds the standard library and nothing else; it knows inputs, never expected results.

Requests come in on standard input, each marshalled behind its length; replies go out on the descriptor that was standard
output, one JSON value a line (written here by hand: importing `json` would take half of the time that a program takes):

    ["confine", libraries, readable]                                 -> ["confined"]
    ["limits", {"memory": bytes, "cpu": seconds, "file": bytes}]     -> ["ready"]
    ["load", code]                        -> ["loaded"] | ["unreadable", line, message] | ["raised", type, message]
    ["call", name, arguments, keywords]   -> ["returned", value] | ["raised", type, message] | ["missing"]
    ["main", code, text on stdin]         -> ["printed", text, ["returned"] | ["raised", type, message]]

Whatever the program makes this process say is taken for its own output and compared outside, so that taking the
process over gains nothing.
"""

import builtins
import marshal
import os
import resource
import sys

ALWAYS_DENIED = """
ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_getfd bpf setns unshare perf_event_open userfaultfd
mount umount2 pivot_root chroot fsopen fsmount fsconfig open_tree move_mount mount_setattr open_by_handle_at
io_uring_setup keyctl add_key request_key kexec_load kexec_file_load init_module finit_module delete_module
memfd_create memfd_secret shmget semget msgget mq_open
reboot sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex swapon swapoff acct quotactl
ioperm iopl syslog mknod mknodat
"""
DENIED_ALONE = """
socket socketpair kill tkill tgkill pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo setsid setpgid
sched_setaffinity sched_setscheduler sched_setparam sched_setattr setpriority ioprio_set
process_madvise process_mrelease move_pages migrate_pages
chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes utimensat futimesat truncate
setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat file_setattr
"""
NEWER = {"memfd_secret": 447, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "file_setattr": 469}
SHOWN = 200  # characters of an exception's message or of a value without a literal


def encode(value, depth=0):
    """A value as tagged JSON. Exact types only: a subclass could pretend to be equal to anything."""
    kind = type(value)
    if depth > 100:
        return ["other", plain(kind.__name__), "nested more than 100 deep"]
    if value is None or kind is bool:
        return value
    if kind is int:
        return ["int", hex(value)]
    if kind is float:
        return ["float", value.hex()]
    if kind is complex:
        return ["complex", value.real.hex(), value.imag.hex()]
    if kind is str:
        return ["str", value.encode("utf-8", "surrogatepass").hex()]
    if kind is bytes:
        return ["bytes", value.hex()]
    if kind in (list, tuple, set, frozenset):
        return [kind.__name__, [encode(v, depth + 1) for v in value]]
    if kind is dict:
        return ["dict", [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items()]]
    return ["other", plain(kind.__name__), plain(repr(value)[:SHOWN])]


def to_json(value):
    """JSON of lists, strings of printable ASCII, booleans, None and small integers."""
    if type(value) is list:
        return "[" + ",".join(map(to_json, value)) + "]"
    if type(value) is str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or type(value) is bool
        else str(value)
    )


def plain(text):
    """Text as printable ASCII."""
    return "".join(
        c if " " <= c <= "~" else repr(c)[1:-1] for c in text.encode("ascii", "backslashreplace").decode()
    )


def raised(error):
    try:
        said = str(error)[:SHOWN]
    except BaseException:
        said = ""
    return ["raised", plain(type(error).__name__), plain(said)]


def forbidden(seccomp, alone):
    """A system-call filter (pyseccomp) that forbids new processes, tracing, namespaces, memory that outlives its process or that
    no limit counts, and what only an administrator may; where it stands `alone`, without namespaces around it, also the
    network, whatever reaches another process, and changes of files that need no open file. To be put on a process of one
    thread or none."""
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    again, absent, denied = seccomp.ERRNO(11), seccomp.ERRNO(38), seccomp.ERRNO(1)  # EAGAIN, ENOSYS, EPERM
    clone_thread = 0x00010000
    rules.add_rule(again, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, clone_thread, 0))
    names = (ALWAYS_DENIED + (DENIED_ALONE if alone else "")).split()
    # The C library falls back from clone3 to clone, whose flags a filter can read.
    for answer, some in ((again, ("fork", "vfork")), (absent, ("clone3",)), (denied, names)):
        for name in some:
            number = seccomp.resolve_syscall(seccomp.system_arch(), name)
            if number < 0:  # this architecture has no such call, or the library is older than it
                number = NEWER.get(name, -1)
            if number >= 0:
                rules.add_rule(answer, number)
    if alone:
        rules.add_rule(denied, "prlimit64", seccomp.Arg(0, seccomp.NE, 0))  # the limits of another process
        for command in (8, 10, 15):  # F_SETOWN, F_SETSIG, F_SETOWN_EX: signals by way of a descriptor
            rules.add_rule(denied, "fcntl", seccomp.Arg(1, seccomp.EQ, command))
        for request in (0x8901, 0x8902):  # FIOSETOWN, SIOCSPGRP: the same
            rules.add_rule(denied, "ioctl", seccomp.Arg(1, seccomp.EQ, request))
    return rules


def confinement(libraries, readable, alone=True):
    """A function that puts Landlock and a system-call filter on the process that calls it, for a system that allows no
    namespaces: nothing can be written anywhere. Not `alone`, within namespaces, the filter is what is left to add."""
    sys.path += libraries
    import pyseccomp

    rules = None
    if alone:
        import landlock

        access = landlock.FSAccess
        rules = landlock.Ruleset()
        rules.allow(*readable, rules=access.READ_FILE | access.READ_DIR | access.EXECUTE)
    calls = forbidden(pyseccomp, alone)
    del sys.path[len(sys.path) - len(libraries) :]

    def confine():
        if rules is not None:
            rules.apply()
        calls.load()

    return confine


def confine(*arguments):
    confinement(*arguments)()
    return ["confined"]


def limit(limits):
    for name, value in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_CPU, limits["cpu"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(name, (value, value))
    return ["ready"]


def load(place, code):
    try:
        exec(compile(code, "answer", "exec"), place)
    except SyntaxError as error:
        return ["unreadable", error.lineno or 0, plain(str(error.msg))]
    except BaseException as error:
        return raised(error)
    return ["loaded"]


def call(place, name, arguments, keywords):
    function = place.get(name)
    if not callable(function):
        return ["missing"]
    try:
        return ["returned", encode(function(*arguments, **keywords))]
    except BaseException as error:
        return raised(error)


def main(code, text):
    """The program as a script that reads `text` on standard input; what it prints is the output."""
    import io

    words = io.StringIO()
    sys.stdin, sys.stdout = io.StringIO(text), words
    ended = load({"__name__": "__main__"}, code)
    if ended[0] == "loaded" or ended[:2] == ["raised", "SystemExit"]:
        ended = ["returned"]
    return ["printed", encode(words.getvalue()), ended]


def serve():
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # which `site` would bring
    place = {"__name__": "answer"}
    while head := requests.read(8):
        kind, *rest = marshal.loads(requests.read(int.from_bytes(head, "big")))
        if kind == "confine":
            reply = confine(*rest)
        elif kind == "limits":
            reply = limit(*rest)
        elif kind == "load":
            reply = load(place, *rest)
        elif kind == "main":
            reply = main(*rest)
        else:
            reply = call(place, *rest)
        try:
            data = to_json(reply).encode() + b"\n"
        except BaseException as error:  # too large for the memory that is left
            data = to_json(raised(error)).encode() + b"\n"
        while data:
            data = data[os.write(replies, data) :]


if __name__ == "__main__":
    serve()
