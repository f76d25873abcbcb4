//! Filters of system calls: children to which the kernel refuses `io_uring`, as in many
//! containers, and threads that may make but a few calls, or one call less.
//!
//! Holds the `unsafe` of setting a filter, also between fork and exec.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_PROCESS, c_long, sock_filter, sock_fprog,
};

/// Makes `io_uring_setup` fail with `errno` in the child of a command, and in its children.
/// Everything else stays allowed. The spawn fails where the kernel has no seccomp.
pub fn refuse_io_uring(command: &mut Command, errno: i32) {
    let mut filter = filter(libc::SYS_io_uring_setup, errno);
    // SAFETY: `set` makes two system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(move || set(&mut filter)) };
}

/// From now on a system call fails with `errno` in this thread, and in what it starts.
///
/// # Errors
/// Where the kernel has no seccomp.
pub fn refuse_in_this_thread(call: c_long, errno: i32) -> io::Result<()> {
    set(&mut filter(call, errno))
}

/// From now on this thread, and what it starts, may make these system calls only (and ask for
/// the time, which is none on most machines): another one kills the process by SIGSYS.
///
/// # Errors
/// Where the kernel has no seccomp.
pub fn allow_only(calls: &[c_long]) -> io::Result<()> {
    let mut filter = vec![instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0)];
    for call in calls.iter().chain(&[libc::SYS_clock_gettime]) {
        let call = u32::try_from(*call).expect("a small number");
        filter.push(instruction(BPF_JMP | BPF_JEQ | BPF_K, call, 1));
        filter.push(instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0));
    }
    filter.push(instruction(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0));
    set(&mut filter)
}

fn set(filter: &mut [sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `prctl` is a plain system call, safe after a fork; it reads `program` and the
    // instructions that it points to, both alive here.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
    };
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn filter(call: c_long, errno: i32) -> [sock_filter; 4] {
    let refuse = SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let call = u32::try_from(call).expect("a small number");
    [
        // The number of the call is the first field of what a filter sees.
        instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        // Skips the next one when it is another call.
        instruction(BPF_JMP | BPF_JEQ | BPF_K, call, 1),
        instruction(BPF_RET | BPF_K, refuse, 0),
        instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0),
    ]
}

fn instruction(code: u32, k: u32, jump_if_false: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("16 bits"), jt: 0, jf: jump_if_false, k }
}
