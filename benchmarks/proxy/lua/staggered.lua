-- Clients begin spread over the milliseconds given, so that the end of the run does not cut off a whole wave.
dofile("result.lua")
local clients, spread, begun

function init(args)
  clients, spread, begun = tonumber(args[1]), tonumber(args[2]), 0
end

function delay()
  begun = begun + 1
  if begun > clients then return 0 end
  return math.floor(spread * begun / clients)
end
