//! One suite a port, run unchanged on every implementation, with the services that the harness starts; and what only
//! one of them can do.

mod coordinator;
mod etcd;
mod etcd_faults;
