// Sends Kerberos messages from a web page to a KDC proxy, by POST ([MS-KKDCP]) or through the tunnel (docs/tunnel.md).

const utf8 = new TextEncoder();
const join = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]));

// DER: an element, and the contents of the element that the bytes begin with.
function der(tag, ...parts) {
  const contents = join(...parts), size = contents.length;
  const length = size < 128 ? [size] : size < 256 ? [0x81, size] : [0x82, size >> 8, size & 255];
  return join([tag], length, contents);
}
function contentsOf(bytes, tag) {
  if (bytes[0] !== tag) throw new Error(`DER tag ${bytes[0]} instead of ${tag}`);
  const more = bytes[1] < 128 ? 0 : bytes[1] & 127;
  const size = more ? bytes.slice(2, 2 + more).reduce((sum, byte) => 256 * sum + byte, 0) : bytes[1];
  return bytes.subarray(2 + more, 2 + more + size);
}

// The envelope KDC-PROXY-MESSAGE. The message in it has its length in 4 bytes.
function wrap(message, realm) {
  const length = [24, 16, 8, 0].map((bits) => (message.length >> bits) & 255);
  return der(0x30, der(0xa0, der(0x04, length, message)), der(0xa1, der(0x1b, utf8.encode(realm))));
}
const unwrap = (envelope) => contentsOf(contentsOf(contentsOf(envelope, 0x30), 0xa0), 0x04).subarray(4);

function base64url(text) {
  const base64 = btoa(String.fromCharCode(...utf8.encode(text)));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function refusal(status, text, mayBeDelivered) {
  return Object.assign(new Error(`${status}: ${text}`), { status, mayBeDelivered });
}

// Sends a message by POST, and returns the KDC's reply. The page's origin must be in the proxy's cors_origins.
export async function post(url, message, realm) {
  const headers = { "Content-Type": "application/kerberos" };
  const response = await fetch(url, { method: "POST", headers, body: wrap(message, realm) });
  const mayBeDelivered = response.headers.get("Kdc-Has-Message") !== "no";
  if (!response.ok) throw refusal(response.status, await response.text(), mayBeDelivered);
  return unwrap(new Uint8Array(await response.arrayBuffer()));
}

// Sends messages over one WebSocket: `await new Tunnel("wss://proxy.example.com/KdcTunnel").send(message, realm)`.
export class Tunnel {
  constructor(url, token) {
    this.exchanges = new Map();
    this.last = 0;
    this.socket = new WebSocket(url, token ? ["kkdcp.v1", `kkdcp.token.${base64url(token)}`] : ["kkdcp.v1"]);
    this.socket.binaryType = "arraybuffer";
    this.hasOpened = false;
    this.opened = new Promise((resolve) => (this.socket.onopen = resolve)).then(() => (this.hasOpened = true));
    this.socket.onmessage = ({ data }) => this.receive(new Uint8Array(data));
    this.socket.onclose = ({ code, reason }) => this.fail(() => true, `closed (${code}) ${reason}`, this.hasOpened);
  }

  send(message, realm) {
    return new Promise((resolve, reject) => {
      if (this.socket.readyState > WebSocket.OPEN) throw refusal(0, "the tunnel is closed", false);
      const number = ++this.last, header = new DataView(new ArrayBuffer(5));
      header.setUint8(0, 1);
      header.setUint32(1, number);
      this.exchanges.set(number, { resolve, reject });
      const frame = join(new Uint8Array(header.buffer), wrap(message, realm));
      this.opened.then(() => this.socket.send(frame));
    });
  }

  receive(frame) {
    const view = new DataView(frame.buffer), number = view.getUint32(1), exchange = this.exchanges.get(number);
    if (frame[0] === 5) this.fail((each) => each > number, "the proxy stops", false);
    if (!exchange || (frame[0] !== 2 && frame[0] !== 3)) return;
    this.exchanges.delete(number);
    if (frame[0] === 2) exchange.resolve(unwrap(frame.subarray(5)));
    else exchange.reject(refusal(view.getUint16(5), new TextDecoder().decode(frame.subarray(10)), frame[9] !== 0));
  }

  fail(concerns, text, mayBeDelivered) {
    for (const [number, { reject }] of this.exchanges) {
      if (!concerns(number)) continue;
      this.exchanges.delete(number);
      reject(refusal(0, text, mayBeDelivered));
    }
  }
}

// Builds an AS-REQ without preauthentication, which a KDC answers with its demand for it (RFC 4120 5.4.1).
export function asReq(realm, user) {
  const field = (number, contents) => der(0xa0 + number, contents);
  const integer = (...bytes) => der(0x02, bytes);
  const string = (text) => der(0x1b, utf8.encode(text));
  const name = (type, ...parts) => der(0x30, field(0, integer(type)), field(1, der(0x30, ...parts.map(string))));
  const nonce = crypto.getRandomValues(new Uint8Array(3));
  const body = der(0x30, field(0, der(0x03, [0, 0, 0, 0, 0])), field(1, name(1, user)), field(2, string(realm)),
    field(3, name(2, "krbtgt", realm)), field(5, der(0x18, utf8.encode("20370913024805Z"))),
    field(7, integer(1, ...nonce)), field(8, der(0x30, integer(18), integer(17))));
  return der(0x6a, der(0x30, field(1, integer(5)), field(2, integer(10)), field(4, body)));
}
