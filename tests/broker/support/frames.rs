//! The frames of AMQP 0-9-1 as they stand on the wire, one at a time.

use tokio::io::{AsyncRead, AsyncReadExt};

const HEADER: usize = 7;

/// What a client sends: the protocol header that opens a connection, or a frame.
pub struct Frame {
    pub bytes: Vec<u8>,
}

impl Frame {
    /// None where the client has closed.
    pub async fn read(from: &mut (impl AsyncRead + Unpin), first: bool) -> std::io::Result<Option<Self>> {
        let mut bytes = vec![0; if first { HEADER + 1 } else { HEADER }];
        match from.read_exact(&mut bytes).await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        if !first {
            let size = u32::from_be_bytes(bytes[3..HEADER].try_into().unwrap()) as usize;
            bytes.resize(HEADER + size + 1, 0);
            from.read_exact(&mut bytes[HEADER..]).await?;
            assert_eq!(bytes.last(), Some(&0xCE), "not a frame of AMQP");
        }
        Ok(Some(Self { bytes }))
    }

    /// Class and method, where it is a method.
    fn method(&self) -> Option<(u16, u16)> {
        let payload = self.bytes.get(HEADER..HEADER + 4).filter(|_| self.bytes[0] == 1)?;
        Some((u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]])))
    }

    pub fn is_channel_close(&self) -> bool {
        self.method() == Some((20, 40))
    }

    /// Whether the broker will answer it on its own.
    pub fn is_heartbeat(&self) -> bool {
        self.bytes[0] == 8
    }

    /// For people.
    pub fn name(&self) -> String {
        match (self.bytes[0], self.method()) {
            (b'A', _) => "protocol header".to_owned(),
            (2, _) => "content header".to_owned(),
            (3, _) => "content body".to_owned(),
            (8, _) => "heartbeat".to_owned(),
            (_, Some((class, method))) => {
                let known = match (class, method) {
                    (10, 11) => "connection.start-ok",
                    (10, 31) => "connection.tune-ok",
                    (10, 40) => "connection.open",
                    (10, 50) => "connection.close",
                    (10, 51) => "connection.close-ok",
                    (20, 10) => "channel.open",
                    (20, 40) => "channel.close",
                    (20, 41) => "channel.close-ok",
                    (50, 10) => "queue.declare",
                    (50, 40) => "queue.delete",
                    (60, 20) => "basic.consume",
                    (60, 30) => "basic.cancel",
                    (60, 40) => "basic.publish",
                    (60, 80) => "basic.ack",
                    (85, 10) => "confirm.select",
                    _ => return format!("method {class}.{method}"),
                };
                known.to_owned()
            }
            (kind, None) => format!("frame of type {kind}"),
        }
    }
}
