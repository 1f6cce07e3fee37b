import { Tunnel, asReq, post } from "./kdc-proxy.js";

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

document.querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  const { host, realm, user } = Object.fromEntries(new FormData(event.target));
  const show = (way, text) => (document.querySelector("pre").textContent += `${way}: ${text}\n`);
  for (const [way, send] of Object.entries({
    POST: (message) => post(`https://${host}/KdcProxy`, message, realm),
    tunnel: (message) => new Tunnel(`wss://${host}/KdcTunnel`).send(message, realm),
  })) {
    await send(asReq(realm, user)).then((reply) => show(way, hex(reply)), (error) => show(way, error.message));
  }
};
