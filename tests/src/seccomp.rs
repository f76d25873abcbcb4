//! Children to which the kernel refuses `io_uring`, as in many containers.
//!
//! Holds the `unsafe` of setting a filter of system calls between fork and exec.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    sock_filter, sock_fprog,
};

/// Makes `io_uring_setup` fail with `errno` in the child of a command, and in its children.
/// Everything else stays allowed. The spawn fails where the kernel has no seccomp.
pub fn refuse_io_uring(command: &mut Command, errno: i32) {
    let mut filter = filter(errno);
    let set = move || {
        let program = sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: `prctl` is a plain system call, safe after a fork; it reads `program`
        // and the four instructions that it points to, both alive here.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0
        };
        if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: `set` makes two system calls, allocates nothing and takes no lock.
    unsafe { command.pre_exec(set) };
}

fn filter(errno: i32) -> [sock_filter; 4] {
    let refuse = SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let setup = u32::try_from(libc::SYS_io_uring_setup).expect("a small number");
    [
        // The number of the call is the first field of what a filter sees.
        instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        // Skips the next one when it is another call.
        instruction(BPF_JMP | BPF_JEQ | BPF_K, setup, 1),
        instruction(BPF_RET | BPF_K, refuse, 0),
        instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0),
    ]
}

fn instruction(code: u32, k: u32, jump_if_false: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("16 bits"), jt: 0, jf: jump_if_false, k }
}
