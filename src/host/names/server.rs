//! The NameHost port: one UDP and one TCP socket on the configured address.
//!
//! Owns the sockets and the table that is answered from; the DNS actor decides what is in it. A
//! query changes nothing and asks nobody else.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{
    Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode,
};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Mutex;

use super::answer::{Answer, answer};
use super::table::Table;
use crate::model::{Name, Subnet};
use crate::ports::{HostError, NameHost, PortFuture};

/// Large enough for our answers, small enough never to be cut on the way (RFC 9715).
const PAYLOAD: u16 = 1232;
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_ANSWERS: usize = 16;
/// A port that is free for TCP may be taken for UDP; with port 0 another one is as good.
const TRIES: usize = 16;

pub struct DnsServer {
    listen: SocketAddr,
    zone: Zone,
    running: Mutex<Option<Running>>,
}

struct Running {
    bound: SocketAddr,
    server: Server<Zone>,
}

/// What is answered from; shared with the sockets' tasks.
#[derive(Clone)]
struct Zone {
    subnet: Subnet,
    table: Arc<RwLock<Table>>,
}

impl std::fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DnsServer").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl DnsServer {
    /// Binds nothing yet. Addresses of `subnet` are those that are answered backwards.
    #[must_use]
    pub fn new(listen: SocketAddr, subnet: Subnet) -> Self {
        let zone = Zone { subnet, table: Arc::default() };
        Self { listen, zone, running: Mutex::new(None) }
    }
}

impl NameHost for DnsServer {
    fn serve(&self) -> PortFuture<'_, SocketAddr> {
        Box::pin(async move {
            let mut running = self.running.lock().await;
            if let Some(running) = &*running {
                return Ok(running.bound);
            }
            let (udp, tcp, bound) = bind(self.listen).await.map_err(|error| {
                HostError::io("listen for DNS on", self.listen.to_string(), error)
                    .hint("set another port in the configuration, or stop what listens there")
            })?;
            let mut server = Server::new(self.zone.clone());
            server.register_socket(udp);
            server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS);
            *running = Some(Running { bound, server });
            Ok(bound)
        })
    }

    fn set(&self, name: &Name, address: Ipv4Addr) {
        let mut table = self.zone.table.write().unwrap_or_else(PoisonError::into_inner);
        table.set(name.as_str(), address);
    }

    fn remove(&self, name: &Name) {
        let mut table = self.zone.table.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(name.as_str());
    }

    fn stop(&self) -> PortFuture<'_, ()> {
        Box::pin(async move {
            let Some(mut running) = self.running.lock().await.take() else { return Ok(()) };
            let ended = running.server.shutdown_gracefully().await;
            ended.map_err(|error| {
                HostError::io("stop DNS on", running.bound.to_string(), io::Error::other(error))
            })
        })
    }
}

async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener, SocketAddr)> {
    let mut tries = if listen.port() == 0 { TRIES } else { 1 };
    loop {
        let tcp = TcpListener::bind(listen).await?;
        let bound = tcp.local_addr()?;
        tries -= 1;
        match UdpSocket::bind(bound).await {
            Ok(udp) => return Ok((udp, tcp, bound)),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

#[async_trait]
impl RequestHandler for Zone {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut reply: R,
    ) -> ResponseInfo {
        let answer = self.answer_to(request);
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let mut edns = request.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            edns
        });
        if let Answer::Code(code) = answer {
            metadata.response_code = code;
            metadata.authoritative = code == ResponseCode::NXDomain;
            if let Some(edns) = &mut edns {
                edns.set_rcode_high(code.high());
            }
        }
        let mut response = MessageResponseBuilder::from_message_request(request);
        // Left out, systemd-resolved takes the server for an old one and asks everything twice.
        if let Some(edns) = &edns {
            response.edns(edns);
        }
        let record = match &answer {
            Answer::Record(record) => Some(&**record),
            Answer::NoData | Answer::Code(_) => None,
        };
        let sent = reply.send_response(response.build(metadata, record, None, None, None)).await;
        sent.unwrap_or_else(|error| {
            tracing::debug!(%error, peer = %request.src(), "dns answer not sent");
            let counts = HeaderCounts::default();
            ResponseInfo::from(Header { metadata, counts })
        })
    }
}

impl Zone {
    fn answer_to(&self, request: &Request) -> Answer {
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return Answer::Code(ResponseCode::BADVERS);
        }
        match (request.metadata.message_type, request.metadata.op_code) {
            (MessageType::Query, OpCode::Query) => {}
            (MessageType::Query, _) => return Answer::Code(ResponseCode::NotImp),
            (MessageType::Response, _) => return Answer::Code(ResponseCode::FormErr),
        }
        let Ok(info) = request.request_info() else {
            return Answer::Code(ResponseCode::FormErr);
        };
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let query = info.query;
        answer(&table, self.subnet, query.name(), query.query_class(), query.query_type())
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
