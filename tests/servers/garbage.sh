# A stdio server that speaks no MCP: it answers every line with one that is not JSON.
while read -r _; do
  echo 'garbage: {"jsonrpc":'
done
