-- The same request again and again, as fast as it is answered.
dofile("result.lua")
