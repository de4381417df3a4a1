//! Hands an open file over the socket between the worker and PID 1: what the program inside reads. Everything else that
//! it has was inherited; its standard input cannot be, for that place is the socket's.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::Interest;

/// The byte that the file comes with.
const HERE: u8 = b'f';

/// Sends a file.
///
/// # Errors
/// When the other side is gone.
pub(super) async fn send(socket: &tokio::net::UnixStream, file: OwnedFd) -> io::Result<()> {
    loop {
        socket.writable().await?;
        match socket.try_io(Interest::WRITABLE, || give(socket.as_fd(), file.as_fd())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

fn give(socket: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("there is no room for a file"));
    }
    sendmsg(socket, &[IoSlice::new(&[HERE])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a file; it is not inherited by what is started next.
///
/// # Errors
/// When the other side is gone, or sent something else.
pub(super) fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let file = control.drain().find_map(|message| {
        let RecvAncillaryMessage::ScmRights(mut files) = message else { return None };
        files.next()
    });
    file.filter(|_| byte == [HERE]).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no file came"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[tokio::test]
    async fn a_file_arrives_and_what_is_none_does_not() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = tokio::net::UnixStream::from_std(ours).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        send(&ours, reader.into()).await.unwrap();
        writer.write_all(b"through it").unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(receive(&theirs).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through it");
        ours.try_write(b"f").unwrap();
        assert!(receive(&theirs).is_err());
        drop(ours);
        assert!(receive(&theirs).is_err());
    }
}
