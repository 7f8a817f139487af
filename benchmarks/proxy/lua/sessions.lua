-- The sessions of a file take turns, one cookie a line; each connection rests some milliseconds in between.
dofile("result.lua")
local cookies, turn, pause = {}, 0, 0

function init(args)
  for line in io.lines(args[1]) do cookies[#cookies + 1] = line end
  pause = tonumber(args[2])
end

function delay()
  return pause
end

function request()
  turn = turn % #cookies + 1
  wrk.headers["Cookie"] = cookies[turn]
  return wrk.format()
end
