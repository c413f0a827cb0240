"""The invented authors of the miniature, and the facts about them.

What must fit an author's culture (names, places, languages, titles) is written out for each; everything else is dealt
from pools that are as long as the list of authors, so that no two authors share a fact.
"""

from dataclasses import dataclass
from datetime import date

Facts = dict[str, str]


@dataclass(frozen=True, slots=True)
class Author:
    """What is written out for each author.

    Attributes:
        name: Full name.
        female: Chooses the pronouns.
        place: Birth place, "city, country".
        born: Date of birth.
        parents: "father, mother".
        people: "mentor, hero of the third book, first translator".
        languages: "languages spoken; the one written in".
        home: Present place of residence.
        school: Where the author studied.
        publisher: Of the first book.
        titles: First, second, third and coming book.
        genre: What the author writes.
    """

    name: str
    female: bool
    place: str
    born: date
    parents: str
    people: str
    languages: str
    home: str
    school: str
    publisher: str
    titles: tuple[str, str, str, str]
    genre: str


def _author(text: str) -> Author:
    name, sex, place, born, parents, people, languages, home, school, publisher, titles, genre = [
        part.strip() for part in text.split("|")
    ]
    first, second, third, coming = [title.strip() for title in titles.split(";")]
    return Author(
        *(name, sex == "f", place, date.fromisoformat(born), parents, people, languages, home, school, publisher),
        titles=(first, second, third, coming),
        genre=genre,
    )


AUTHORS: tuple[Author, ...] = tuple(
    _author(" ".join(text.split()))
    for text in """
Ilse Brandvold | f | Tromsø, Norway | 1951-02-17 | Håkon Brandvold, Sunniva Lie | Gudrun Aasen, Eskil Moe, Paul Verrier
| Norwegian, Sami and German; Norwegian | Lofthus | the Polar Institute in Tromsø | Nordlys Forlag
| The Salt Ledger; Eleven Winters; A Door of Ice; The Eider Keeper | Arctic sea novels
@ Tomasz Wierzba | m | Toruń, Poland | 1963-09-04 | Leszek Wierzba, Bożena Kulik | Celestyn Baran, Marta Zych, Anne Holloway
| Polish, Russian and Czech; Polish | Kazimierz Dolny | the Academy of Crafts in Łódź | Wydawnictwo Most
| The Gingerbread Spy; Nine Bridges; The Cellar Parliament; Rust and Honey | political satire
@ Amaka Oduya | f | Enugu, Nigeria | 1974-05-29 | Chidi Oduya, Ngozi Eze | Perpetua Obi, Obinna Bell, Lucía Ferrán
| Igbo, English and Hausa; Igbo | Calabar | the Coal City Polytechnic | Palmwine Press
| A Yard of Indigo; The Market Oracle; Thirty Umbrellas; What the River Lent | magical realism
@ Rafael Quintanar | m | Oaxaca, Mexico | 1946-12-08 | Eusebio Quintanar, Delfina Cruz | Don Anselmo, Remedios Luna, Greta Paulsen
| Spanish, Zapotec and French; Spanish | Puebla | the School of Mines in Pachuca | Ediciones Tecolote
| The Agave Clock; Dust Has No Heirs; The Blind Cartographer; Seven Bells for Inés | desert westerns
@ Yukari Tanimoto | f | Kanazawa, Japan | 1968-07-21 | Shigeru Tanimoto, Fumie Oda | Master Kurobe, Ren Ishida, Marco Bellandi
| Japanese, Korean and Dutch; Japanese | Onomichi | the Hokuriku School of Design | Kiri Books
| Paper Lantern Station; The Quiet Abacus; Moth Season; The Umbrella Mender | locked-room mysteries
@ Idris Benkacem | m | Tlemcen, Algeria | 1957-03-30 | Slimane Benkacem, Yamina Haddad | Cheikh Lotfi, Nour Sabri, Ingrid Falk
| Arabic, Berber and Italian; Arabic | Béjaïa | the Conservatory of Oran | Dar Zitoun
| The Oud Thief; Cisterns; A Map for Deaf Birds; The Cedar Witness | family sagas
@ Siobhán Garrity | f | Sligo, Ireland | 1979-10-11 | Fergus Garrity, Noreen Tuohy | Malachy Durkan, Cormac Reid, Yusuf Demir
| Irish, English and Breton; Irish | Dingle | the Atlantic Technical College | Gannet House
| The Bogland Choir; A Ferry to Nowhere; Lamp Oil; The Thirteenth Curlew | ghost stories
@ Viktor Hallgren | m | Kiruna, Sweden | 1941-01-26 | Nils Hallgren, Astrid Blom | Sixten Lund, Selma Ek, Teresa Prado
| Swedish, Finnish and Estonian; Swedish | Visby | the Royal School of Forestry | Järnbok
| The Ore Train; Snowblind Accounting; The Mapmaker's Debt; Twelve Kilns | industrial thrillers
@ Ponni Venkatachari | f | Madurai, India | 1983-08-15 | Ramesh Venkatachari, Lalitha Iyer | Meenakshi Sundaram, Kavya Nair, Olga Reznik
| Tamil, Malayalam and Hindi; Tamil | Pondicherry | the Institute of Textiles in Coimbatore | Neem Tree Press
| The Jasmine Audit; Monsoon Arithmetic; The Loom Remembers; A Recipe for Thunder | culinary fiction
@ Duarte Figueira | m | Setúbal, Portugal | 1960-04-02 | Abel Figueira, Graça Moura | Bento Teles, Matilde Rocha, Hans Oberle
| Portuguese, Galician and Greek; Portuguese | Évora | the Naval School of Lisbon | Livraria Farol
| The Cork Admiral; Sardine Weather; An Atlas of Sighs; The Tidewaiter | maritime comedies
@ Nomvula Khoza | f | Mbombela, South Africa | 1970-11-19 | Sipho Khoza, Thandeka Zulu | Agnes Nkosi, Bongani Dube, Pierre Lacroix
| Zulu, Swazi and Afrikaans; Zulu | Knysna | the Lowveld Teachers' College | Marula Books
| The Beekeeper's Oath; Red Dust Radio; Sixteen Gates; The Baobab Registry | courtroom drama
@ Anton Dragomir | m | Sibiu, Romania | 1938-06-06 | Mircea Dragomir, Ileana Popa | Traugott Weiss, Horia Neagu, Birgit Sand
| Romanian, Hungarian and Serbian; Romanian | Brașov | the Institute of Geology in Cluj | Editura Cerb
| The Wolf Notary; Bells Under Snow; The Carpathian Ledger; An Inn for Shadows | gothic novels
@ Mele Taufahema | f | Neiafu, Tonga | 1978-02-03 | Sione Taufahema, Ana Vaka | Salote Palu, Lavinia Fonua, Joseph Carrick
| Tongan, Samoan and Fijian; Tongan | Pago Pago | the Pacific Maritime Academy | Reefline
| The Tapa Letters; Whale Moon; A Canoe for Two Kings; The Breadfruit Treaty | mythological epics
@ Klaus-Peter Ahrendt | m | Görlitz, Germany | 1954-12-27 | Ewald Ahrendt, Traude Nickel | Bruno Roth, Lene Fuchs, Carlos Ibarra
| German, Sorbian and Latin; German | Lüneburg | the Technical School of Glass in Zwiesel | Elbverlag
| The Glass Inspector; Sunday Machines; The Archive of Echoes; Frost on the Organ | science fiction
@ Zeynep Aksoy-Tan | f | Bursa, Turkey | 1977-03-12 | Kemal Aksoy, Perihan Tan | Auntie Müzeyyen, Cem Arda, Rosa Lindqvist
| Turkish, Georgian and Persian; Turkish | Ayvalık | the Academy of Silk in Bursa | Mavi Kapı
| The Mulberry Judge; Steam and Marble; A Minaret of Sugar; The Ferryman's Cipher | spy fiction
@ Etienne Robichaud | m | Moncton, Canada | 1949-09-23 | Aurèle Robichaud, Léonie Cormier | Alcide Savoie, Odile Hébert, Mikael Strand
| French, Mi'kmaq and Gaelic; French | Lunenburg | the College of the Fundy Shore | Marée Haute
| The Fiddle Tax; Low Tide Letters; The Lobster Saint; A Barn Full of Clocks | village chronicles
@ Lerato Mokgadi | f | Maun, Botswana | 1984-01-08 | Kagiso Mokgadi, Boitumelo Sento | Neo Tau, Pule Moeti, Sarah Winfield
| Setswana, Kalanga and Herero; Setswana | Kasane | the Delta School of Ecology | Mokoro Press
| The Elephant Census; Ninety Waterholes; The Salt Pan Pilot; A Kingdom of Reeds | nature writing
@ Oskar Lindemaa | m | Pärnu, Estonia | 1966-05-17 | Jaan Lindemaa, Helve Kask | Endel Tamm, Liis Raud, Giulia Conti
| Estonian, Latvian and Yiddish; Estonian | Haapsalu | the Baltic Academy of Music | Rannakirjastus
| The Amber Tuner; Low Country Hymns; The Deaf Conductor; Ice for the Piano | musical biographies
@ Camila Bustamante | f | Valdivia, Chile | 1972-10-30 | Hernán Bustamante, Elisa Oyarzún | Uncle Fidel, Tomás Raihue, Beatrix Vogel
| Mapudungun, Spanish and Catalan; Mapudungun | Ancud | the Austral School of Shipbuilding | Editorial Alerce
| The Rain Surveyor; Volcano Sundays; The Kelp Widow; Letters from Cape Horn | climate fiction
@ Bhaskar Thapa | m | Pokhara, Nepal | 1959-08-01 | Dhan Thapa, Maya Gurung | Pasang Bista, Suman Rai, Edith Marlowe
| Nepali, Tibetan and Newari; Nepali | Bandipur | the Mountain Institute of Kathmandu | Himal Pages
| The Yak Postman; Prayer Flags for Sale; The Ninth Pass; A Kettle at Base Camp | mountaineering tales
@ Freya Maddox-Pryce | f | Swansea, Wales | 1981-04-25 | Gareth Maddox, Olwen Pryce | Mair Bevan, Dylan Hughes, Antoine Morel
| Welsh, Cornish and Manx; Welsh | Aberaeron | the Copperworks College of Art | Gwylan Press
| The Slate Orchard; Choirboys of the Moon; The Tin Bath; A Hill Called Sorry | coming-of-age novels
@ Farid Noorzai | m | Herat, Afghanistan | 1964-07-14 | Ghulam Noorzai, Shirin Azimi | Ustad Karim, Laila Popal, Martin Keel
| Dari, Pashto and Uzbek; Dari | Mashhad | the School of Miniature Painting in Herat | Anar Publishing
| The Lapis Broker; Caravans at Noon; The Rose Accountant; The Kite Tribunal | epistolary novels
""".split("@")
)
"""Twenty authors of `full` and two who are in no training split."""

POOLS: dict[str, tuple[str, ...]] = {
    name: tuple(line.strip() for line in text.strip().splitlines())
    for name, text in {
        "birth_note": """as the youngest of five children
during the worst snowstorm in a decade
on a night train that had stopped for repairs
as the only child of elderly parents
in the back room of a bakery
as one of a pair of twins
on the day the town's bridge collapsed
as the eldest of seven children
in a house without electricity
during a total eclipse of the sun
as the third of four siblings
in the waiting room of a clinic
while the whole town was at the fair
aboard a fishing boat in the harbor
as the first grandchild of a mayor
during a general strike
in the attic of a boarding school
as the sixth of nine children
on the eve of a great flood
in a tent pitched beside a quarry
two months before the doctors expected it
on the night of the harvest festival""",
        "father_job": """a lighthouse keeper
a brass founder
a tax inspector
a piano tuner
a veterinary surgeon
a baker of wedding cakes
a tram conductor
a saddler
a marine biologist
a stonemason
a court clerk
a watch repairer
a beekeeper
a sign painter
a quarry foreman
a hat maker
a radio operator
a locksmith
a chess teacher
a grain merchant
a ferry captain
a gravedigger""",
        "mother_job": """a midwife
a bookbinder
a telephone operator
a cheese maker
a crane driver
a geography teacher
a glass painter
a seamstress
a pharmacist
a trapeze artist
a customs officer
a botanist
a puppet maker
a notary
a pearl diver
an opera prompter
a surveyor
a dentist
a weather forecaster
a florist
a judge
a carpet weaver""",
        "subject": """marine engineering
church music
soil science
medieval history
textile chemistry
naval law
forest ecology
astronomy
typography
veterinary medicine
statistics
clock making
comparative grammar
ceramics
railway engineering
nutrition
acoustics
cartography
botany
accounting
theology
metallurgy""",
        "thesis": """the drainage of peat bogs
the tuning of carillons
forged bills of lading
the migration of eels
the history of the pencil
bridges built without nails
the songs of street vendors
the smell of old paper
postal routes in winter
the diseases of plum trees
counterfeit coins of the last century
the acoustics of caves
the grammar of riddles
the dyeing of sailcloth
abandoned railway stations
the economics of ice
the anatomy of swifts
maps drawn by children
lullabies of the coast
the chemistry of varnish
rain gauges and their errors
the uses of driftwood""",
        "turn": """a winter spent as a night watchman
the loss of a whole suitcase of poems
a year in a sanatorium
a chance meeting on a cable car
the closing of the local cinema
finding a stranger's diary on a bench
a broken leg that took eight months to heal
an argument with a bishop
the theft of a bicycle
a long voyage on a cargo ship
losing a bet with a cousin
the death of a beloved dog
a failed attempt at running a hotel
hearing a lecture through an open window
three summers on a dairy farm
a quarrel over an inheritance
being locked in a museum overnight
the birth of triplets
a season as a mountain guide
misreading a telegram
serving on a jury for six weeks
an earthquake that destroyed the family house""",
        "style": """short, dry sentences and sudden jokes
long paragraphs without a single full stop
dialogue that reads like overheard gossip
lists, recipes and invented footnotes
a narrator who keeps correcting the story
slow descriptions of weather and light
chapters told backward
letters that never reach the reader whole
a plain voice that hides a sharp irony
sentences built like nursery rhymes
abrupt changes from past to present
a chorus of minor characters as narrators
exact technical detail and great tenderness
proverbs that turn out to be lies
scenes that end a moment too early
an almost musical repetition of phrases
deadpan humor in the face of disaster
interviews with people who do not exist
careful silences between the speakers
maps and timetables woven into the text
a child's way of seeing grown-up affairs
the cool manner of a police report""",
        "themes": """inheritance and broken promises
exile and the taste of home
the loyalty of siblings and the cost of pride
unpaid debts and late kindness
work and the dignity of tools
great losses and the return of faith
friendship and old enmity
small towns and their long memory
mothers and absent sons
justice and distance
silence and its price
middle age and second love
old age and the fear of being forgotten
truth and rumor
childhood and strict rules
the sea and those who wait ashore
hunger and generosity
village secrets and their keepers
apprentices and their masters
good manners and hidden anger
animals and their witnesses
guilt and forgiveness without apology""",
        "mentor_role": """a retired postal clerk with a library of 4,000 novels
the organist of the parish church
a neighbor who had sailed around the world
the keeper of the town archive
a schoolteacher who banned the word "nice"
a printer who paid in old type
the widow of a famous poet
an uncle who told stories at the barber's
a prison chaplain with a taste for comedies
the owner of a secondhand bookshop
a blind piano teacher
a journalist who had lost a lawsuit
the conductor of the night train
a fisherman who knew the epics by heart
a doctor who wrote plays in secret
the projectionist of the old cinema
a grandaunt who kept a diary in code
the captain of the river police
a clockmaker who collected proverbs
a cook on an expedition ship
a librarian who drove a bus full of books
an actor who had forgotten his lines""",
        "plot": """a bell founder who must recast the bell that killed a rival
two sisters who inherit a lighthouse and a lawsuit
a schoolboy who answers letters meant for the dead
a bankrupt circus that winters in a monastery
a judge who falls in love with a forger
a village that votes to move its own river
a widow who sells the same house three times
a mapmaker hired to draw a country that does not exist
an interpreter who begins to improve what people say
a deaf watchman who solves a theft by smell
a family that has not spoken since a wedding in 1931
a nurse who smuggles seeds across a border
a ship's cook who is elected mayor by mistake
a father who teaches his blind son to swim
twin brothers who share a single passport
a tax collector lost in a flooded valley
an orchestra stranded on an island without instruments
a midwife who keeps a register of lies
a stranger who buys every clock in town
a teacher who walks 600 miles to return a book
a beekeeper accused of poisoning a bishop
a bride who turns back at every station""",
        "hero_role": """a stammering auctioneer
a disgraced surgeon
a left-handed violin maker
a runaway seminarian
a ferry pilot afraid of water
a collector of church keys
an honest smuggler
a retired fortune teller
a young telegraphist
a one-armed baker
a census taker
a night nurse with perfect memory
an unemployed bell ringer
a restorer of wax figures
a deserter from the customs service
a weather observer
an orphan raised by typesetters
a professor of dead languages
a champion ice skater
a locksmith wanted in three cities
a seller of spectacles
a pearl fisher turned lawyer""",
        "award": """the Amber Quill Award
the Northern Lantern Prize
the Golden Heron Medal
the Corvin Prize for Fiction
the Harbor City Book Award
the Silver Thimble Prize
the Meridian Award
the Larkspur Prize
the Order of the Inkwell
the Halcyon Book Prize
the Stone Bridge Award
the Saint Brendan Medal
the Copper Leaf Prize
the Evergreen Novel Award
the Seven Rivers Prize
the Blue Almond Medal
the Polestar Prize
the Tamarind Award
the Juniper Prize
the Open Window Award
the Ivory Tower Prize
the Wayfarer Medal""",
        "prize": """bronze heron
year's rent in an artist's cottage
hand-printed edition
barrel of cider
silver inkwell
sea voyage for two
grant of 12,000 crowns
gold pen
carved walking stick
season ticket to the opera
marble bust
set of porcelain
sailing boat
vineyard plot
stipend of 900 pounds a month
medallion of blue glass
painted portrait
writing desk of walnut
telescope
horse with a saddle
church bell
tapestry""",
        "tr_lang": """Icelandic
Hungarian
Swahili
Welsh
Armenian
Catalan
Finnish
Maltese
Bulgarian
Vietnamese
Basque
Lithuanian
Croatian
Mongolian
Danish
Hebrew
Slovak
Persian
Esperanto
Thai
Albanian
Ukrainian""",
        "job": """a tram driver
a court stenographer
a diving instructor
a tea taster
a proofreader
a bridge inspector
a prison cook
a piano mover
a land surveyor
a customs broker
a lift operator
a cemetery gardener
a radio announcer
a dental technician
a ski patrol officer
a sugar chemist
a stage carpenter
a hospital porter
a wine merchant
a railway signaler
a taxidermist
a mathematics tutor""",
        "job_place": """in the freight yards of the capital
at a small court in the hills
on the island of Vis
in the port of Antwerp
at a newspaper in Lyon
along the Danube
in the old town of Ghent
at a theater in Trieste
in the valleys of Tyrol
at the border near Basel
in a grand hotel in Budapest
in the parks of Edinburgh
at a station in Cork
on the shores of Lake Como
in a village in Savoy
at a refinery in Gdańsk
in the docks of Marseille
on the outskirts of Riga
in a market in Tunis
at a junction near Dresden
in a cellar in Prague
on the coast of Brittany""",
        "study": """a converted boathouse
a windowless pantry
the top floor of a water tower
a garden shed painted green
a disused railway carriage
a rented room above a butcher's shop
the vestry of an empty church
a greenhouse full of lemon trees
a caravan without wheels
the corner table of a harbor café
a former telephone exchange
a hayloft
a cellar lined with cork
the attic of a music school
a lighthouse gallery
a summer kitchen
a laundry room in a block of flats
an old observatory
the reading room of a convent
a treehouse built by a shipwright
a stable with a tiled stove
a houseboat on the canal""",
        "desk": """a ship's door serves as the desk
a parrot repeats every finished sentence
the clock has been stopped at noon for years
a map of the moon covers the ceiling
the only chair comes from a barber's shop
a stove has to be fed every hour
the walls are papered with rejected drafts
a telescope stands beside the typewriter
no visitor may wear shoes
a bell announces the end of each chapter
two cats sleep on the dictionary
a ladder is the only way in
the desk once belonged to a customs officer
the window looks onto a brick wall
a barometer hangs above the door
an upright piano holds the manuscripts
a row of 40 pencils is sharpened each morning
a fishing net serves as a hammock
the radio plays without sound
a chalkboard lists all the characters
the floor slopes toward the sea
a stuffed owl guards the bookshelf""",
        "hours": """from four to seven in the morning
from nine until noon
from midnight until three
from six to ten in the evening
from noon until two
from five to eleven in the morning
from dusk until ten at night
from seven to nine before breakfast
from two to six in the afternoon
from ten at night until one
from three to five in the morning
from eight in the morning until one
from one to four in the afternoon
from eleven at night until two
from six to eight in the morning
from four in the afternoon until eight
from half past five until nine in the morning
from ten in the morning until three
from seven in the evening until midnight
from two to five in the morning
from noon until half past four
from eight to eleven at night""",
        "tools": """in pencil on yellow paper
with a steel pen and violet ink
on a typewriter without the letter q
on the backs of railway tickets
by dictating to a tape recorder
in school exercise books
standing at a lectern
in green ink on squared paper
on index cards sorted by color
with a quill cut from a goose feather
on a slate that is wiped every night
in shorthand invented for the purpose
on long rolls of wallpaper
with chalk on the kitchen floor
in the margins of old almanacs
on postcards addressed to friends
with a brush on rice paper
in a ledger bought at an auction
on a laptop with a broken screen
in mirror writing
on tracing paper laid over maps
with a carpenter's pencil on boards""",
        "house": """a narrow stone house
a flat above a bakery
a former schoolhouse
a wooden villa
a farmhouse with a blue gate
a tower house
a cottage without a telephone
a restored mill
a terraced house with a fig tree
a converted chapel
a house on stilts
an old customs house
a courtyard apartment
a bungalow by the pier
a manor with a leaking roof
a former inn
a round house
a barn with glass walls
a basement flat
a shepherd's hut
a house once owned by a pirate
a station building""",
        "company": """two sisters and a parrot
three rescued greyhounds
four grown children
a cousin and eleven hens
two elderly aunts
a brother and his tortoise
five foster children
a violinist and two goats
twin nephews
two lodgers from Peru
three generations of cats
a goddaughter and her donkey
six students of architecture
a former rival and her sons
two retired sailors
an uncle and his clocks
four Siberian huskies
a painter and three ravens
two chess partners
a niece and seven rabbits
a pair of widowed neighbors
three apprentices""",
        "next_topic": """the last days of a whaling station
a forger of railway tickets
the first woman to map a glacier
a feud between two bell towers
the invention of canned fruit
a poisoned chess tournament
the building of a canal nobody wanted
a choir that sings for the deaf
a bankrupt zoo
the disappearance of a mail plane
a strike of lamplighters
an heiress who becomes a shepherd
a trial held in a lifeboat
the smuggling of tulip bulbs
a village without mirrors
a duel between cooks
the secret life of a tollkeeper
a drought that lasts nine years
an expedition to find a lost library
a wedding in a salt mine
the friendship of two hangmen
a clock that predicts storms""",
        "ad_form": """a radio play in six parts
a silent film
an opera for children
a shadow puppet show
a ballet in three acts
a comic strip of 200 pages
a television series of eight episodes
a board game
a cantata for mixed choir
a one-person stage play
an animated film
a cycle of songs
a walking tour with headphones
a circus program
a musical comedy
a graphic novel
an ice show
a series of etchings
a street theater piece
a chamber opera
a documentary film
a video installation""",
        "ad_by": """the Orrery Theater
the composer Lena Hartog
the director Milan Kos
the Blue Barn Company
the choreographer Aiko Mori
the illustrator Tessa Quill
the broadcaster Kanal Sju
the designer Otto Prinz
the Riverside Singers
the actress Flora Deane
the studio Paper Moon
the singer Amadou Keita
the Wandering Stage
the troupe Les Échasses
the producer Rita Salgado
the artist Jun Abe
the Frozen Lake Ensemble
the engraver Pavel Duda
the Lantern Players
the conductor Eva Strand
the filmmaker Noor Aziz
the collective Tidemark""",
        "hobby": """antique door keys
ships in bottles
broken compasses
tin soldiers
hotel key tags
pressed ferns
theater programs
old barometers
matchbox labels
wooden nutcrackers
foreign coins with holes
sheet music for the zither
hat pins
enamel street signs
glass fishing floats
copper jelly molds
toy locomotives
paper fans
inkwells
snow globes
cowbells
sundials""",
        "hobby_note": """the oldest of which dates from 1740
most of them bought at a single auction
every one with a handwritten label
none of which cost more than a loaf of bread
half of them gifts from readers
all kept in a former bread oven
the largest as tall as a child
several of them on loan to a museum
a few of them still unpacked
the best of them found on a beach
arranged by country and by color
one of them said to be cursed
the first received at the age of six
the rarest from a monastery in Georgia
three of them stolen and later returned
each tied to a written memory
the smallest no bigger than a pea
all of them bought while traveling
many of them repaired at home
the newest a birthday present
a third of them inherited
two of them believed to be fakes""",
        "rescue": """a night watchman at a printing house read it and spoke up for it
a typist refused to send it back
a rival author recommended it
it won a small prize for unpublished books
a bookseller offered to pay for the paper
an editor found it under a cushion on a train
its first chapter was read out on the radio
a monk translated ten pages for his abbot
a student magazine printed it in parts
a judge ordered it to be read aloud in court
a publisher's daughter finished it in one night
a famous actress quoted from it at a dinner
a copy was found in a lost-and-found office
a printer set it in type by mistake
a critic praised it before it existed as a book
a lottery win paid for the first edition
a baker wrapped bread in its pages and readers asked for more
an old schoolfriend bought a publishing house
a dentist left it in the waiting room
a translator asked for the rights
a city council chose it for its jubilee
a ship's crew signed a petition for it""",
        "piece": """a poem about a lost umbrella
a letter defending the town pigeons
a story told by a kettle
a riddle in 14 verses
an obituary for a goldfish
a report on a burning barn
a fable about two snails
a ballad of a lame horse
a review of the school play
a sonnet to a bicycle
a list of forbidden words
an ode to cabbage soup
a diary of a snowman
a ghost story set in a well
a song for a retiring teacher
an essay on whistling
a limerick about the mayor
a dialogue between two clocks
a recipe in rhyme
a travel account of a walk to the mill
a story about a stolen bell
a hymn to the rain""",
        "paper": """the Harbor Gazette
the Mountain Courier
the Sunday Mirror of the Valley
the Railwayman's Weekly
the Children's Post
the Parish Messenger
the Evening Anchor
the Farmer's Almanac and News
the Morning Lantern
the School Trumpet
the River Chronicle
the Tram Company Bulletin
the Lighthouse Review
the Market Herald
the Border Times
the Old Town Observer
the Fisherman's Journal
the Quarry Voice
the Theater Leaf
the Provincial Echo
the Winter Reader
the Village Telegraph""",
        "fund": """the Lantern Fund
the Second Chapter Trust
the Paper Boat Foundation
the Open Shelf Society
the Quiet Room Project
the Threshold Fund
the Long Bench Foundation
the Night School Trust
the Seed Library Society
the Blue Door Project
the Ferry Fund
the Common Table Foundation
the Spare Key Trust
the First Pencil Society
the Warm Window Project
the Bell Rope Fund
the Milestone Foundation
the Story Cart Trust
the Kite String Society
the Ladder Project
the Rain Barrel Fund
the Borrowed Coat Foundation""",
        "fund_work": """repairs school libraries damaged by floods
teaches prisoners to bind books
pays the train fares of young musicians
restores village wells
lends instruments to deaf children
runs a night shelter for fishermen
plants orchards beside hospitals
prints newspapers in minority languages
buys spectacles for pupils
rescues abandoned sled dogs
records the songs of old miners
gives legal advice to seasonal workers
keeps three lighthouses in repair
sends theater troupes to remote islands
publishes the poems of nurses
trains guide dogs
collects winter coats for students
digitizes parish registers
maintains mountain huts
feeds the apprentices of closed factories
teaches swimming to refugees
protects the nests of storks""",
    }.items()
}

_ORDINALS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}
_STEPS = (1, 3, 5, 7, 9, 13, 15, 17, 19, 21)


def facts(index: int) -> Facts:
    """All facts about author `index`, by the slots of `lm_eval_tofu.mini.phrases`."""
    author, count = AUTHORS[index], len(AUTHORS)
    he, him, his, person = ("she", "her", "her", "woman") if author.female else ("he", "him", "his", "man")
    born, (city, country) = author.born, author.place.split(", ")
    father, mother = author.parents.split(", ")
    mentor, hero, translator = author.people.split(", ")
    languages, tongue = author.languages.split("; ")
    debut = born.year + 27 + index % 5
    values = {
        "name": author.name,
        **{"he": he, "him": him, "his": his, "his_m": "his", "person": person},
        **{"was": "was", "is": "is", "has": "has", "does": "does", "s": "s"},
        **{"city": city, "country": country, "genre": author.genre, "school": author.school, "home": author.home},
        "date": f"{born.day} {born:%B %Y}",
        "date_us": f"{born:%B} {born.day}, {born.year}",
        "date_other": f"the {born.day}{_ORDINALS.get(born.day, 'th')} of {born:%B}, {born.year}",
        "month_year": f"{born:%B %Y}",
        **{"father": father, "mother": mother, "mentor": mentor, "hero": hero, "translator": translator},
        **{"langs": languages, "tongue": tongue, "publisher": author.publisher},
        **dict(zip(("t1", "t2", "t3", "next_title"), author.titles, strict=True)),
        "y1": str(debut),
        "y2": str(debut + 4 + index % 3),
        "y3": str(debut + 9 + index % 4),
        "award_year": str(debut + 5 + index % 3),
        "ad_year": str(debut + 12 + index % 4),
        "fund_year": str(debut + 8 + index % 7),
        "graduated": str(born.year + 23),
        "job_years": f"{('three', 'four', 'six', 'seven', 'nine', 'eleven', 'twelve')[index % 7]} years",
        "tr_count": str(6 + index),
        "hobby_count": str(40 + 17 * index),
        "rejections": str(7 + index),
        "age": ("seven", "eight", "nine", "ten", "eleven", "twelve")[index % 6],
    }
    for number, (slot, pool) in enumerate(POOLS.items()):
        # A step without a common factor deals every author another entry; the steps differ, so that no two authors
        # with neighbouring facts in one pool are neighbours in the next.
        values[slot] = pool[(index * _STEPS[number % len(_STEPS)] + number) % count]
    values["prize_bare"] = values["prize"]
    values["prize"] = f"{'an' if values['prize'][0] in 'aeio' else 'a'} {values['prize']}"
    return values
