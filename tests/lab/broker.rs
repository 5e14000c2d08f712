//! RabbitMQ's management API: a virtual host for each test, and what is in it.

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use super::http::{Answer, request};
use super::{Cluster, Result, fail};

const LIMIT: Duration = Duration::from_secs(10);
const USER: &str = "shadow";
const PASSWORD: &str = "shadow";

/// The virtual host of one test.
#[derive(Clone, Debug)]
pub struct Broker {
    ip: String,
    vhost: String,
}

impl Broker {
    /// An empty virtual host, whatever was in it before.
    pub async fn fresh(cluster: &Cluster, vhost: &str) -> Result<Self> {
        let broker = Self { ip: cluster.broker_ip.clone(), vhost: vhost.to_owned() };
        broker.remove().await?;
        broker.call("PUT", &format!("/api/vhosts/{vhost}"), "{}").await?;
        let all = r#"{"configure":".*","write":".*","read":".*"}"#;
        broker.call("PUT", &format!("/api/permissions/{vhost}/{USER}"), all).await?;
        Ok(broker)
    }

    pub async fn remove(&self) -> Result {
        self.call("DELETE", &format!("/api/vhosts/{}", self.vhost), "").await.map(drop)
    }

    pub fn url(&self) -> String {
        format!("amqp://{USER}:{PASSWORD}@{}:5672/{}", self.ip, self.vhost)
    }

    pub async fn queues(&self) -> Result<Vec<String>> {
        let answer = self.call("GET", &format!("/api/queues/{}?columns=name", self.vhost), "").await?;
        let list: Vec<Value> = answer.json()?;
        Ok(list.iter().filter_map(|queue| Some(queue["name"].as_str()?.to_owned())).collect())
    }

    /// As `exchange -> queue (key)`, without those that every queue has.
    pub async fn bindings(&self) -> Result<Vec<String>> {
        let answer = self.call("GET", &format!("/api/bindings/{}", self.vhost), "").await?;
        let list: Vec<Value> = answer.json()?;
        let word = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let made = list.iter().filter(|one| !word(one, "source").is_empty());
        Ok(made
            .map(|one| {
                format!(
                    "{} -> {} ({})",
                    word(one, "source"),
                    word(one, "destination"),
                    word(one, "routing_key")
                )
            })
            .collect())
    }

    /// As RabbitMQ's API takes it: `durable`, `auto_delete`, `arguments`.
    pub async fn declare_queue(&self, name: &str, properties: &Value) -> Result {
        let path = format!("/api/queues/{}/{name}", self.vhost);
        self.call("PUT", &path, &properties.to_string()).await.map(drop)
    }

    pub async fn delete_queue(&self, name: &str) -> Result {
        self.call("DELETE", &format!("/api/queues/{}/{name}", self.vhost), "").await.map(drop)
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let word = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let head = format!("Authorization: Basic {word}\r\nContent-Type: application/json\r\n");
        let to = format!("{}:15672", self.ip);
        let answer = request(&to, method, path, &head, body.as_bytes(), LIMIT).await?;
        match answer.status {
            200..=299 => Ok(answer),
            404 if method == "DELETE" => Ok(answer),
            status => {
                fail(format!("broker: {method} {path}: {status}: {}", String::from_utf8_lossy(&answer.body)))
            }
        }
    }
}
