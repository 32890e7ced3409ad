-- The load of `fleet-bench loader --wrk`: every call has an id of its own, every body is looked at.
-- fleet-bench fills in what is between @ signs.
local thread_number = 0
function setup(thread)
  thread:set("number", thread_number)
  thread_number = thread_number + 1
end

local front, back, last
function init()
  front, back = [[@FRONT@]], [[@BACK@]]
  last = 1000000000000000 + number * 1000000000000
  wrk.method = "POST"
  wrk.path = "@PATH@"
@HEADERS@
  wrong = 0
end

function request()
  last = last + 1
  return wrk.format(nil, nil, nil, front .. string.format("%.0f", last) .. back)
end

function response(status, headers, body)
  if status ~= 200 or not body:find('"result":', 1, true) or not body:find("@TEXT@", 1, true) then
    wrong = wrong + 1
  end
end
