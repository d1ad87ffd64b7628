package pgtest

import "syscall"

// endWithParent has a process end with the thread that starts it, should the
// test binary be killed.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }
