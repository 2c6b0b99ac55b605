//! The lane against a guest that is played: what it says, cut anywhere, and what it is told.

use tokio::net::UnixListener;

use super::*;

/// Answers the greeting, behind a stale rest of a session before.
async fn greeted(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut said = [0; size_of::<Greeting>()];
    stream.read_exact(&mut said).await.unwrap();
    stream.write_all(b"what nobody has read").await.unwrap();
    stream.write_all(&said).await.unwrap();
    stream
}

async fn frame(stream: &mut UnixStream) -> (HostKind, Vec<u8>) {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.unwrap();
    let mut payload = vec![0; lane::first_frame(&header).unwrap().unwrap() - HEADER_BYTES];
    stream.read_exact(&mut payload).await.unwrap();
    (HostKind::try_from(header[0]).unwrap(), payload)
}

async fn say(stream: &mut UnixStream, kind: GuestKind, payload: &[u8]) {
    stream.write_all(&lane::frame(kind, payload).unwrap()).await.unwrap();
}

fn request() -> ExecRequest {
    ExecRequest { argv: vec!["true".into()], env: vec![], cwd: None, op_id: [7; 16] }
}

fn socket() -> (tempfile::TempDir, PathBuf, UnixListener) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lane.sock");
    let listener = UnixListener::bind(&path).unwrap();
    (dir, path, listener)
}

#[tokio::test]
async fn streams_signals_and_the_end_are_carried() {
    let (_dir, path, listener) = socket();
    let guest = async {
        let mut stream = greeted(&listener).await;
        let (kind, payload) = frame(&mut stream).await;
        assert_eq!(kind, HostKind::Request);
        assert_eq!(exec::decode(&payload).unwrap(), Some(request()));
        let mut heard = vec![];
        while heard.len() < 3 {
            heard.push(frame(&mut stream).await);
        }
        heard.sort_by_key(|(kind, _)| u8::from(*kind));
        let data = (HostKind::Data, b"input".to_vec());
        assert_eq!(heard, [data, (HostKind::End, vec![]), (HostKind::Signal, b"TERM".to_vec())]);
        say(&mut stream, GuestKind::Out, b"out").await;
        say(&mut stream, GuestKind::Err, b"err").await;
        say(&mut stream, GuestKind::Exit, &7_u32.to_le_bytes()).await;
    };
    let host = async {
        let mut lane = Lane::take(&path).await.unwrap();
        let (controls, theirs) = mpsc::channel(1);
        controls.send(Control::Signal("TERM".into())).await.unwrap();
        let (mut stdout, mut stderr) = (vec![], vec![]);
        let io = GuestIo { stdin: &b"input"[..], stdout: &mut stdout, stderr: &mut stderr };
        let ended = lane.exec(&request(), io, theirs).await.unwrap();
        assert_eq!((stdout.as_slice(), stderr.as_slice()), (&b"out"[..], &b"err"[..]));
        ended
    };
    assert_eq!(tokio::join!(host, guest).0, ExitKind::Code(7));
}

#[tokio::test]
async fn no_more_is_sent_than_was_granted() {
    let (_dir, path, listener) = socket();
    let input = vec![1; WINDOW as usize + 10];
    let guest = async {
        let mut stream = greeted(&listener).await;
        frame(&mut stream).await;
        let mut taken = 0;
        while taken < WINDOW as usize {
            taken += frame(&mut stream).await.1.len();
        }
        assert_eq!(taken, WINDOW as usize);
        let more = tokio::time::timeout(Duration::from_millis(50), frame(&mut stream)).await;
        assert!(more.is_err(), "{more:?}");
        say(&mut stream, GuestKind::Grant, &4_u32.to_le_bytes()).await;
        assert_eq!(frame(&mut stream).await.1.len(), 4);
        // A program that ends without reading the rest.
        say(&mut stream, GuestKind::Died, b"KILL").await;
    };
    let host = async {
        let mut lane = Lane::take(&path).await.unwrap();
        let (_controls, theirs) = mpsc::channel(1);
        let io = GuestIo { stdin: input.as_slice(), stdout: vec![], stderr: vec![] };
        lane.exec(&request(), io, theirs).await.unwrap()
    };
    assert_eq!(tokio::join!(host, guest).0, ExitKind::Signal("KILL".into()));
}

#[tokio::test]
async fn a_guest_that_goes_is_lost_and_one_that_talks_nonsense_too() {
    for last_words in [&b""[..], b"\x00\x05\x00\x00\x00cut", b"\xff\x00\x00\x00\x00", &[1; 400]] {
        let (_dir, path, listener) = socket();
        let guest = async {
            let mut stream = greeted(&listener).await;
            frame(&mut stream).await;
            stream.write_all(last_words).await.unwrap();
        };
        let host = async {
            let mut lane = Lane::take(&path).await.unwrap();
            let (_controls, theirs) = mpsc::channel(1);
            let io = GuestIo { stdin: tokio::io::empty(), stdout: vec![], stderr: vec![] };
            lane.exec(&request(), io, theirs).await.unwrap_err()
        };
        let error = tokio::join!(host, guest).0;
        assert!(matches!(error, GuestError::Lost { .. }), "{last_words:?}: {error:?}");
    }
}

#[tokio::test]
async fn the_greeting_is_found_behind_anything_and_nothing_is_read_beyond_it() {
    let wanted = greeting([9; NONCE_BYTES]);
    let other = greeting([8; NONCE_BYTES]);
    for before in [&b""[..], b"an old session's rest", &other, &wanted[..20]] {
        for piece in [1, 7, 4096] {
            let stream = [before, &wanted, b"more"].concat();
            let (mut guest, mut host) = tokio::io::duplex(piece);
            let says = async {
                guest.write_all(&stream).await.unwrap();
                drop(guest);
            };
            let hears = async {
                hear(&mut host, &wanted).await.unwrap();
                let mut rest = vec![];
                host.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"more");
            };
            tokio::join!(says, hears);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_says_nothing_is_given_up() {
    let (_dir, path, _vmm) = socket();
    assert_eq!(Lane::take(&path).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn the_lane_is_taken_once_and_given_back() {
    let (_dir, path, listener) = socket();
    let (lane, _guest) = tokio::join!(Lane::take(&path), greeted(&listener));
    let lane = lane.unwrap();
    assert_eq!(Lane::take(&path).await.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(lane);
    tokio::join!(Lane::take(&path), greeted(&listener)).0.unwrap();
}

#[tokio::test]
async fn without_a_socket_there_is_no_lane() {
    let dir = tempfile::tempdir().unwrap();
    let error = Lane::take(&dir.path().join("lane.sock")).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// As Firecracker takes a client to a port of its guest.
async fn brought(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut asked = [0; 13];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"CONNECT 1023\n");
    stream
}

async fn greeted_by_vsock(listener: &UnixListener) -> UnixStream {
    let mut stream = brought(listener).await;
    stream.write_all(b"OK 1073741824\n").await.unwrap();
    let mut said = [0; size_of::<Greeting>()];
    stream.read_exact(&mut said).await.unwrap();
    stream.write_all(&said).await.unwrap();
    stream
}

#[tokio::test]
async fn by_vsock_there_is_room_for_more_than_one() {
    let (_dir, path, listener) = socket();
    let guest = async {
        let mut open = vec![];
        for _ in 0..2 {
            open.push(greeted_by_vsock(&listener).await);
        }
        for stream in &mut open {
            frame(stream).await;
            say(stream, GuestKind::Exit, &3_u32.to_le_bytes()).await;
        }
        open
    };
    let host = async {
        let lanes = [Lane::dial(&path).await.unwrap(), Lane::dial(&path).await.unwrap()];
        for mut lane in lanes {
            let io = GuestIo { stdin: tokio::io::empty(), stdout: vec![], stderr: vec![] };
            let (_controls, theirs) = mpsc::channel(1);
            assert_eq!(lane.exec(&request(), io, theirs).await.unwrap(), ExitKind::Code(3));
        }
    };
    tokio::join!(guest, host);
}

#[tokio::test]
async fn a_guest_without_a_lane_by_vsock_is_known_at_once() {
    let (_dir, path, listener) = socket();
    let refused = async { drop(brought(&listener).await) };
    let error = tokio::join!(Lane::dial(&path), refused).0.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// As a guest that is paused.
#[tokio::test(start_paused = true)]
async fn a_vsock_that_never_answers_is_given_up() {
    let (_dir, path, _vmm) = socket();
    assert_eq!(Lane::dial(&path).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
