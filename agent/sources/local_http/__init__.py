"""The local HTTP source: the cloud's ingest endpoint, on loopback or a Unix socket of this device.

    client ─▶ source.py       listens, bounds the connections
              conversation.py HTTP on one connection: deadlines, limits, nothing of sales
              door.py         which request gets which answer
              post.py         a body into payloads, or why not
              committer.py    what several clients posted, in one commit ─▶ the spool

May be relied on
- 200 means that every accepted sale is on storage that honours flush. Before that nothing is answered, and
  after any other answer nothing of the post is stored.
- Under one Idempotency-Key a body is stored once, however often it is posted and whatever was killed between.
  Without one, each post is stored: repeats of a sale with a `transaction_id` become one only in the server's silver.
- A client that stalls, lies or floods costs one of a bounded number of connections for a bounded time.
"""

from agent.sources.local_http.source import LocalHttpSource

__all__ = ["LocalHttpSource"]
