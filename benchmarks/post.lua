-- Posts the lines of the file BODIES, one after the other, each a JSON body.
local requests = {}
for body in io.lines(os.getenv("BODIES")) do
  requests[#requests + 1] = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, body)
end
local next = math.random(#requests)

function request()
  next = next % #requests + 1
  return requests[next]
end
